"""The privacy trial of scripts/torture.py, as it is: it is short."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from scripts.bench.store import Store
from tests.trials.canary import Canaries
from tests.trials.session import Session


def test_the_search_knows_every_form_in_which_a_text_may_be_written() -> None:
    canaries = Canaries()
    found = canaries.forms_in(b"before " + canaries.in_all_forms(7) + b" after")
    assert set(found) == {*canaries.forms, "token ids"}
    assert Canaries().forms_in(canaries.in_all_forms(7)) == {}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_text_is_seen_anywhere(tmp_path: Path) -> None:
    from tests.trials.privacy import try_privacy

    store = Store(tmp_path / "reliability.json")
    try_privacy(Session(store, Console(), quick=True))
    part = store.modes["privacy"]
    assert part["complete"]
    broken = [finding for finding in part["findings"] if not finding["kept"]]
    assert broken == [], part["figures"]
