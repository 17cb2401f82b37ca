"""Every class of transformers' text classifiers answers as its own pipeline, or is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from classes import N_LABELS
from document import CLASSES, PAGE, line
from judge import BOUNDS, furthest, judge
from vocabularies import names

# A CPU without 8-bit products, and a machine without the extras, refuse what the page says is held.
_NOT_HERE = ("no 8-bit products", "is not installed", "this CPU can't multiply")


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


# One of each kind that people serve; the others are tried by `make trials`, and by whoever writes
# the page anew.
OFTEN = names(
    """
    bart bert deberta-v2 distilbert electra funnel gpt2 llama modernbert qwen3 roberta xlm-roberta
    """
)


@pytest.mark.parametrize(
    "model_type",
    [one if one in OFTEN else pytest.param(one, marks=pytest.mark.trials) for one in CLASSES],
)
def test_a_class_answers_as_transformers_pipeline_or_is_refused(
    model_type: str, tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCLASSIFY_CACHE_DIR", str(tmp_path / "cache"))
    verdict = judge(model_type, tmp_path / "model", CLASSES[model_type])
    assert not verdict.wrong
    for said in verdict.refused.values():
        assert re.search(r"\. (Set|Save|Install|Fetch|Correct) ", said), "no cure is named"
    if any(gone in said for said in verdict.refused.values() for gone in _NOT_HERE):
        pytest.skip("held but for what this machine has not")
    assert line(verdict) in page.splitlines(), (
        "docs/models.md says otherwise: write it anew, python tests/unit/sweep/document.py"
    )


def test_the_page_has_a_line_for_every_class_and_no_other(page: str) -> None:
    lines = page.partition("## Every class")[2].splitlines()
    named = re.findall(r"^\| \S+ \| `([^`]+)` \|", "\n".join(lines), flags=re.MULTILINE)
    assert named == ["model_type", *sorted(CLASSES)]
    assert "**wrong**" not in page


def test_most_classes_hold_their_bounds(page: str) -> None:
    lines = page.partition("## Every class")[2].splitlines()
    rows = [row.split("|") for row in lines if row.startswith("|")]
    for column in range(len(BOUNDS)):
        held = [row for row in rows if row[5 + column].strip() == "held"]
        assert len(held) > 0.75 * len(CLASSES)


def test_a_score_that_is_off_shows() -> None:
    same = {f"LABEL_{i}": 1 / N_LABELS for i in range(N_LABELS)}
    assert furthest([same], [same]) == 0
    assert furthest([{**same, "LABEL_0": 0.3}], [same]) == pytest.approx(1 / N_LABELS - 0.3)
    assert furthest([None], [same]) == furthest([{"other": 1.0}], [same]) == float("inf")
    assert furthest([None], [None]) == 0


def test_what_people_serve_is_there() -> None:
    assert set(CLASSES) >= OFTEN
