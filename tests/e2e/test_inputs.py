"""The trial of bad input from scripts/torture.py, shortened, through the real HAProxy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]

from bench.store import Store  # noqa: E402
from trials import corpus  # noqa: E402
from trials.session import Session  # noqa: E402


def test_the_corpus_is_the_same_at_every_run() -> None:
    assert list(corpus.generated(300)) == list(corpus.generated(300))
    assert list(corpus.encodings()) == list(corpus.encodings())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_bad_input_is_answered_and_harms_nobody(tmp_path: Path) -> None:
    from trials.inputs import try_inputs

    store = Store(tmp_path / "reliability.json")
    try_inputs(Session(store, Console(), quick=True))
    part = store.modes["inputs"]
    assert part["complete"]
    broken = [finding for finding in part["findings"] if not finding["kept"]]
    assert broken == [], part["figures"]["faults"]
