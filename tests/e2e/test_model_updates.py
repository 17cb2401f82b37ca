"""`scripts/torture.py models`, shortened: no answer comes from two models."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.trials import cluster
from tests.trials.model_updates import (
    SINGLE,
    Answers,
    Updated,
    failed_update,
    heal,
    updatable,
    update_under_load,
)
from tests.trials.models import BEFORE, without_numbers, without_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running() -> Iterator[Updated]:
    with updatable() as there:
        yield there


def none_fails(seen: Answers) -> bool:
    return set(seen.all) <= {"old", "new", "both"}


def test_every_answer_during_an_update_is_of_one_model(running: Updated) -> None:
    seen, arrived = update_under_load(running, "another vocabulary")
    assert seen.mixed == []
    assert none_fails(seen)
    assert arrived


@pytest.mark.trials  # takes a minute, and differs in nothing but how much room there must be
def test_so_it_is_with_one_replica_of_each(running: Updated) -> None:
    running.deploy(running.models[BEFORE].place, SINGLE)
    seen, arrived = update_under_load(running, "other labels", SINGLE)
    assert none_fails(seen)
    assert arrived
    running.deploy(running.models[BEFORE].place)


def classifiers() -> set[int]:
    """Processes of all Classifiers on this machine that have started."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "ray::ServeReplica:classify:Classifier" in " ".join(process.info["cmdline"] or ())
    }


@pytest.mark.trials  # 40 s; tests/serve/test_models.py has a model that is not there
def test_a_model_that_its_files_give_away_touches_nothing(running: Updated, tmp_path: Path) -> None:
    pids = {name: running.there.pids(name) for name in cluster.REPLICAS}
    broken = without_weights(tmp_path, running.models["more labels"].place)
    seen, told, said = failed_update(running, broken, "weights")
    assert set(seen.all) == {"both"}
    assert said
    # Serve lists no replicas of an application that could not be built. They are there, and a dead
    # one is replaced.
    assert [len(own) for own in pids.values()] == [2, 2, 2]
    assert all(psutil.pid_exists(pid) for own in pids.values() for pid in own)
    os.kill(pids["Classifier"][0], signal.SIGKILL)
    assert cluster.wait_until(lambda: len(classifiers() - set(pids["Classifier"])) == 1) is not None
    assert told["update"]["status"] == "DEPLOY_FAILED"
    assert "weights" in told["update"]["message"]
    running.deploy(running.models[BEFORE].place)


@pytest.mark.trials  # 112 s; tests/serve/test_models.py has a broken model, if without such a load
def test_after_an_update_that_fails_at_a_replica_all_is_answered_by_the_old_model(
    running: Updated, tmp_path: Path
) -> None:
    old = str(running.models[BEFORE].place)
    broken = without_numbers(tmp_path, running.models["more labels"].place)
    seen, told, said = failed_update(running, broken, "no finite number")
    assert set(seen.all) == {"both"}
    assert said
    assert (told["model"], told["update"]["status"]) == (old, "DEPLOY_FAILED")
    assert told["update"]["model"] in (str(broken), None)  # as a new Tokenizer says it, or an old
    # Half of the old Classifiers die; the old config, deployed again, brings them back.
    seen, whole = heal(running)
    assert set(seen.all) == {"both"}
    assert whole
