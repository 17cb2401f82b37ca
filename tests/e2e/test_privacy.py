"""The privacy trial of scripts/torture.py, as it is: it is short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]

from bench.store import Store  # noqa: E402
from trials.canary import Canaries  # noqa: E402
from trials.session import Session  # noqa: E402


def test_the_search_knows_every_form_in_which_a_text_may_be_written() -> None:
    canaries = Canaries()
    found = canaries.forms_in(b"before " + canaries.in_all_forms(7) + b" after")
    assert set(found) == {*canaries.forms, "token ids"}
    assert Canaries().forms_in(canaries.in_all_forms(7)) == {}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_text_is_seen_anywhere(tmp_path: Path) -> None:
    from trials.privacy import try_privacy

    store = Store(tmp_path / "reliability.json")
    try_privacy(Session(store, Console(), quick=True))
    part = store.modes["privacy"]
    assert part["complete"]
    broken = [finding for finding in part["findings"] if not finding["kept"]]
    assert broken == [], part["figures"]
