"""The trial of bad input from scripts/torture.py, shortened, through the real HAProxy."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from scripts.bench.store import Store
from tests.trials import corpus
from tests.trials.session import Session


def test_the_corpus_is_the_same_at_every_run() -> None:
    assert list(corpus.generated(300)) == list(corpus.generated(300))
    assert list(corpus.encodings()) == list(corpus.encodings())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_bad_input_is_answered_and_harms_nobody(tmp_path: Path) -> None:
    from tests.trials.inputs import try_inputs

    store = Store(tmp_path / "reliability.json")
    try_inputs(Session(store, Console(), quick=True))
    part = store.modes["inputs"]
    assert part["complete"]
    broken = [finding for finding in part["findings"] if not finding["kept"]]
    assert broken == [], part["figures"]["faults"]
