"""`scripts/torture.py models`, shortened: no answer comes from two models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from trials import faults
from trials.disagreeing import BEFORE, without_weights
from trials.model_updates import SINGLE, Updated, failed_update, updatable, update_under_load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running() -> Iterator[Updated]:
    with updatable() as there:
        yield there


@pytest.mark.parametrize(
    "kind", ["rows and names swapped", "more labels", "another vocabulary", "another problem type"]
)
def test_every_answer_during_an_update_is_of_one_model(running: Updated, kind: str) -> None:
    seen, arrived = update_under_load(running, kind)
    assert seen.mixed == []
    assert set(seen.all) <= {"old", "new", "both"}
    assert arrived


def test_so_it_is_with_one_replica_of_each(running: Updated) -> None:
    running.deploy(running.models[BEFORE].place, **SINGLE)
    seen, arrived = update_under_load(running, "other labels", **SINGLE)
    assert set(seen.all) <= {"old", "new", "both"}
    assert arrived
    running.deploy(running.models[BEFORE].place)


def test_after_an_update_that_fails_all_is_answered_by_the_old_model_and_info_says_so(
    running: Updated, tmp_path: Path
) -> None:
    old = running.models[BEFORE].place
    broken = without_weights(tmp_path, running.models["more labels"].place)
    seen, told, said = failed_update(running, broken)
    assert set(seen.all) == {"both"}
    assert said
    assert (told["model"], told["update"]["model"]) == (str(old), str(broken))
    assert told["update"]["status"] == "DEPLOY_FAILED"
    # Half of the old Classifiers die; what was deployed last heals nothing, the old config does.
    with running.asking(BEFORE) as asking:
        faults.kill(running.there, "Classifier")
        running.deploy(old)
        assert faults.wait_until(running.there.is_whole) is not None
    assert set(asking.seen.all) == {"both"}
    assert running.info()["update"] is None
