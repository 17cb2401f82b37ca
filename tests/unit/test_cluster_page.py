"""docs/cluster.md is what docs/cluster.json says, below what is written by hand."""

from __future__ import annotations

from pathlib import Path

from scripts.bench.store import Store
from tests.trials.cluster_page import MARK, page

DOCS = Path(__file__).resolve().parents[2] / "docs"
PART = {
    "machine": {"cores": 2, "cpu": "a CPU", "commit": "abc", "measured_at": "today"},
    "settings": {"quick": False},
    "complete": True,
    "findings": [],
    "figures": {
        "the head ends": {
            "log": [[0.0, "kill -9"], [26.4, "it is back"]],
            "answers": [
                {"from_s": -5.0, "outcomes": {"right": 100}},
                {"from_s": 0.0, "outcomes": {"right": 150}},
                {"from_s": 5.0, "outcomes": {"right": 150}},
                {"from_s": 10.0, "outcomes": {"right": 1, "503 not_ready": 2}},
            ],
        }
    },
}


def test_the_page_is_what_the_json_says() -> None:
    """`python scripts/cluster_trial.py report` writes it."""
    text = (DOCS / "cluster.md").read_text(encoding="utf-8")
    assert text == page(Store(DOCS / "cluster.json").modes, text)


def test_what_is_written_by_hand_stays() -> None:
    text = page({"failover": PART}, f"# By hand\n\n{MARK}\nold tables")
    assert text.startswith(f"# By hand\n\n{MARK}\n")
    assert "old tables" not in text


def test_requests_are_told_by_stretches_and_what_became_of_them() -> None:
    text = page({"failover": PART}, "")
    assert "26.4 s  it is back" in text
    assert "| from -5 s to 0 s | 100 right |" in text
    assert "| from 0 s to 10 s | 300 right |" in text
    assert "| from 10 s to the end | 2 503 not_ready, 1 right |" in text
