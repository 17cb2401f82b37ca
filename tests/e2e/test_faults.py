"""`scripts/torture.py faults`, shortened: what callers see when parts of a cluster go wrong."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from trials import faults
from trials.steady import KILLS, NO_MEMORY, NOT_A_NUMBER, RAISES

pytestmark = pytest.mark.slow

FAILED = "500 prediction_failed"


@pytest.fixture(scope="module")
def there() -> Iterator[faults.Cluster]:
    with faults.cluster() as running:
        yield running


@pytest.mark.parametrize("character", [RAISES, NOT_A_NUMBER, NO_MEMORY])
def test_a_text_that_the_model_fails_on_fails_alone(there: faults.Cluster, character: str) -> None:
    poison = faults.Poison(there, character)
    seen, _ = faults.under_load(there, poison, after_s=0.0)
    assert poison.outcome == FAILED
    assert seen.not_right == {}


def test_a_text_that_kills_its_process_fails_alone_and_is_not_tried_again(
    there: faults.Cluster,
) -> None:
    poison = faults.Poison(there, KILLS)
    seen, back_s = faults.under_load(there, poison)
    assert poison.outcome == FAILED
    assert seen.not_right == {}
    assert back_s is not None
    assert there.is_whole()


def test_a_killed_ingress_loses_no_more_than_it_held(there: faults.Cluster) -> None:
    seen, back_s = faults.under_load(there, lambda: faults.kill(there, "Tokenizer"))
    assert back_s is not None
    assert sum(seen.not_right.values()) < 10, seen


def test_a_frozen_replica_loses_no_request_and_is_replaced(there: faults.Cluster) -> None:
    seen, back_s = faults.under_load(
        there, lambda: faults.kill(there, "Classifier", signal.SIGSTOP)
    )
    assert back_s is not None
    # Each is answered: by another replica, but for a few that met the frozen one twice.
    assert set(seen.not_right) <= {"408 deadline_exceeded"}
    assert sum(seen.not_right.values()) < 10, seen


def test_an_update_of_all_replicas_fails_no_request(there: faults.Cluster) -> None:
    def update() -> set[int]:
        before = {pid for name in faults.REPLICAS for pid in there.pids(name)}
        there.update("limits.max_batch_texts=999")
        return before

    seen, back_s = faults.under_load(there, update)
    assert back_s is not None
    assert seen.not_right == {}
