"""`rayclassify evaluate`: known values, bad tables, the choice, and one real small run."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from typer.testing import CliRunner
from typer.testing import Result as CliResult

from deployments.bulk.tables import BadTable, Row
from deployments.cli import app
from deployments.optimise import baseline
from deployments.optimise.choice import Candidate, Limits, pareto_front, recommend
from deployments.optimise.labelled import (
    BadData,
    Labelled,
    check_known,
    check_splits,
    labelled,
    without,
)
from deployments.optimise.running import Speed
from deployments.optimise.statistics import confusion_of, differences, holm, mcnemar, scores

RNG = np.random.default_rng(3)


def run(*args: str) -> CliResult:
    return CliRunner().invoke(app, ["evaluate", *args])


def write(path: Path, rows: Sequence[tuple[Any, ...]], head: tuple[str, ...] = ("text", "label")):  # type: ignore[no-untyped-def]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path)


def drawn(n: int, n_labels: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Gold labels, and predictions that are right so often, else any label or none."""
    gold = RNG.integers(0, n_labels, n)
    wrong = RNG.integers(0, n_labels + 1, n)
    return gold, np.where(RNG.random(n) < right, gold, wrong)


# --- statistics


@pytest.mark.parametrize("n_labels", [2, 5])
def test_scores_are_those_of_scikit_learn(n_labels: int) -> None:
    gold, predicted = drawn(400, n_labels, 0.7)
    ours = scores(gold, predicted, n_labels)
    names = list(range(n_labels))
    theirs = metrics.precision_recall_fscore_support(gold, predicted, labels=names, zero_division=0)
    for ours_by_label, theirs_by_label in zip(
        (ours.precision, ours.recall, ours.f1), theirs, strict=False
    ):
        assert [one.value for one in ours_by_label] == pytest.approx(theirs_by_label)
    assert ours.accuracy.value == pytest.approx(metrics.accuracy_score(gold, predicted))
    assert ours.macro_f1.value == pytest.approx(np.mean(theirs[2]))
    assert (ours.confusion[:, :-1] == metrics.confusion_matrix(gold, predicted)[:-1, :-1]).all()


def test_the_interval_of_accuracy_is_that_of_a_binomial() -> None:
    gold, predicted = drawn(500, 2, 0.8)
    found = scores(gold, predicted, 2).accuracy
    low, high = stats.binom(500, found.value).ppf([0.025, 0.975]) / 500
    assert found.low == pytest.approx(low, abs=0.004)
    assert found.high == pytest.approx(high, abs=0.004)


def test_the_interval_of_macro_f1_is_that_of_a_bootstrap_over_rows() -> None:
    gold, predicted = drawn(300, 3, 0.8)
    rows = RNG.integers(0, 300, (2_000, 300))
    slow = [scores_of(gold[one], predicted[one]) for one in rows]
    found = scores(gold, predicted, 3).macro_f1
    assert [found.low, found.high] == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.01)


def scores_of(gold: np.ndarray, predicted: np.ndarray) -> float:
    from deployments.optimise.statistics import precision_recall_f1

    return float(precision_recall_f1(confusion_of(gold, predicted, 3))[2].mean())


def test_the_paired_difference_is_the_difference_and_narrower_than_its_parts() -> None:
    gold, one = drawn(400, 2, 0.8)
    other = np.where(RNG.random(400) < 0.05, 1 - gold, one)
    (gap,) = differences(gold, {"one": one, "other": other}, 2)
    alone = [scores(gold, told, 2) for told in (one, other)]
    assert gap.macro_f1.value == pytest.approx(alone[0].macro_f1.value - alone[1].macro_f1.value)
    assert gap.accuracy.value == pytest.approx(np.mean(one == gold) - np.mean(other == gold))
    assert gap.only_first_right == ((one == gold) & (other != gold)).sum()
    width = gap.macro_f1.high - gap.macro_f1.low
    assert width < alone[0].macro_f1.high - alone[0].macro_f1.low


def test_mcnemar_and_holm_give_the_values_of_the_textbook() -> None:
    # Two-sided binomial: 2 × (1 + 10) / 2^10.
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


# --- tables


def rows_of(*pairs: tuple[Any, Any]) -> list[Row]:
    return [Row({"text": text, "label": label}, 0) for text, label in pairs]


GOOD = [(f"text {i}", "ab"[i % 2]) for i in range(40)]


def read(*pairs: tuple[Any, Any]) -> Labelled:
    return labelled(rows_of(*pairs), "t.csv", "text", "label")


def test_what_is_left_out_is_counted() -> None:
    data = read(
        *GOOD, ("text  0 ", "a"), ("text 1", "a"), ("x", None), ("y", ""), (" ", "a"), (None, "b")
    )
    assert len(data) == 39
    assert set(data.notes) == {
        "2 of 46 rows have no label: left out.",
        "2 of 46 rows have no text: left out.",
        "1 texts stand there with several labels: left out.",
        "2 rows repeat a text: each text counts once.",
    }


def test_labels_may_be_numbers_but_one_a_row() -> None:
    assert read(*((text, i % 2) for i, (text, _) in enumerate(GOOD))).names == ["0", "1"]
    assert read(*((text, float(i % 2)) for i, (text, _) in enumerate(GOOD))).names == ["0", "1"]
    with pytest.raises(BadTable, match="several labels"):
        read(("x", ["a", "b"]))


def test_too_little_is_refused_with_the_count() -> None:
    with pytest.raises(BadData, match=r"has 10 texts with a label; 30 are the least"):
        read(*GOOD[:10], ("x", None))
    with pytest.raises(BadData, match=r"all 40 texts of t\.csv have the label 'a'"):
        read(*((text, "a") for text, _ in GOOD))
    with pytest.raises(BadData, match="2 of 'c'"):
        check_splits(read(*GOOD, ("x", "c"), ("y", "c")), 5, "t.csv")


def test_labels_that_the_model_lacks_are_refused_with_their_count() -> None:
    check_known(read(*GOOD), "m", ("a", "b", "c"))
    with pytest.raises(BadData, match="20 of 40 rows have labels that m does not have: 20 of 'b'"):
        check_known(read(*GOOD), "m", ("a", "c"))


def test_what_was_learnt_is_no_test() -> None:
    left = without(read(*GOOD), Labelled(["text 1", "other"], ["b", "a"]), "t.csv", "train.csv")
    assert len(left) == 39
    assert "1 of 40 texts stand in train.csv too" in left.notes[-1]
    with pytest.raises(BadData, match=r"40 of 40 texts of t\.csv .* share no text"):
        without(read(*GOOD), read(*GOOD), "t.csv", "train.csv")


def test_without_scikit_learn_the_baseline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn.feature_extraction.text", "sklearn.model_selection"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(baseline.BaselineMissing, match="scikit-learn is not installed"):
        baseline.cross_predicted([text for text, _ in GOOD], [label for _, label in GOOD])


def test_the_baseline_learns_and_never_sees_what_it_is_asked() -> None:
    texts = [f"{'很好' if i % 2 else '太差'} {i}" for i in range(60)]
    data = Labelled(texts, ["good" if i % 2 else "bad" for i in range(60)])
    assert list(baseline.cross_predicted(data.texts, data.labels)) == data.labels
    noise = Labelled(texts, list(RNG.permutation(data.labels)))
    assert (baseline.cross_predicted(noise.texts, noise.labels) == noise.labels).mean() < 0.8


# --- the choice


def candidate(name: str, gold: Any, told: Any, rate: float, p99_ms: float = 5.0) -> Candidate:
    return Candidate(name, "", scores(gold, told, 2), Speed(1.0, p99_ms, rate, 500.0, 300))


def test_the_fastest_of_those_that_are_not_surely_worse_is_recommended() -> None:
    gold = np.arange(400) % 2
    best, near, bad = gold.copy(), gold.copy(), gold.copy()
    best[:20], near[:19], near[380:383], bad[:120] = (
        1 - gold[:20], 1 - gold[:19], 1 - gold[380:383], 1 - gold[:120],
    )  # fmt: skip
    told = {"best": best, "near": near, "bad": bad}
    rates = {"best": 10.0, "near": 100.0, "bad": 1_000.0}
    models = [candidate(name, gold, told[name], rates[name]) for name in told]
    gaps = differences(gold, told, 2)
    found = recommend(models, gaps, Limits())
    assert found.chosen is models[1]
    assert "can't tell near from it" in " ".join(found.why)
    assert [one.name for one in pareto_front(models)] == ["best", "near", "bad"]
    limited = recommend(models, gaps, Limits(min_f1=0.99))
    assert limited.chosen is None
    assert "below 0.99" in limited.why[0]
    slow = [candidate("best", gold, best, 10.0), candidate("near", gold, near, 100.0, 50.0)]
    found = recommend(slow, gaps, Limits(max_p99_ms=20, max_memory_mb=600))
    assert found.chosen is slow[0]
    assert "near is out: p99 is 50.0 ms, above 20." in found.why


# --- the command


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    good = ("质量很好", "非常满意", "很喜欢，推荐", "物流快，服务好")
    bad = ("太差了", "再也不买", "质量很差", "非常失望，退货")
    rows = [(f"{text} {i}", "positive") for i in range(8) for text in good]
    rows += [(f"{text} {i}", "negative") for i in range(8) for text in bad]
    return write(tmp_path_factory.mktemp("data") / "labelled.csv", rows)


def test_models_are_compared_and_one_is_recommended(
    table: str, demo_model: Path, tmp_path: Path
) -> None:
    report, plot = tmp_path / "report.html", tmp_path / "front.svg"
    result = run(
        *(str(demo_model), "--data", table, "--engine", "torch", "--dtype", "float32"),
        *("--price-per-hour", "0.5", "--report", str(report), "--plot", str(plot), "--json"),
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    model, rival = told["models"]
    assert (model["name"], rival["name"]) == (str(demo_model), baseline.NAME)
    assert model["scores"]["macro_f1"]["value"] > 0.9
    assert np.sum(model["scores"]["confusion"]) == told["texts"] == 64
    assert model["cost"] == pytest.approx(0.5e6 / 3600 / model["speed"]["texts_per_s"])
    assert model["speed"]["memory_mb"] > rival["speed"]["memory_mb"] > 10
    assert told["recommended"] in {model["name"], rival["name"]}
    page = report.read_text(encoding="utf-8")
    assert "<svg" in page
    assert "很好" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")
    assert plot.read_text(encoding="utf-8").count("<svg") == 1
    again = run(str(demo_model), "--data", table, "--report", str(report))
    assert again.exit_code == 2
    assert "--force" in again.output


def test_a_table_that_does_not_fit_the_model_is_refused(demo_model: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few.csv", [("a", "positive")])
    assert run(str(demo_model), "--data", few).exit_code == 2
    missing = run(str(demo_model), "--data", few, "--label-column", "mood")
    assert missing.exit_code == 2
    assert "there is no column mood. The columns are text, label." in missing.output
    assert "Name yours: --text-column, --label-column." in missing.output
    assert run(str(demo_model), "--data", few, "--engine", "warp").exit_code == 2
    other = write(
        tmp_path / "other.csv", [(f"text {i}", ("positive", "mixed")[i % 2]) for i in range(40)]
    )
    refused = run(str(demo_model), "no/model", "--data", other)
    assert refused.exit_code == 2
    assert "20 of 'mixed'" in refused.output


def test_a_model_that_is_not_there_is_a_failure_of_its_own(table: str, tmp_path: Path) -> None:
    result = run(str(tmp_path / "none"), "--data", table, "--no-baseline")
    assert result.exit_code == 1
    assert "no model could be measured" in result.output
