"""`scripts/torture.py faults`, shortened: what callers see when parts of a cluster go wrong."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.bench.client import RIGHT
from tests.trials import cluster, faults, updates
from tests.trials.models import unfit_models
from tests.trials.steady import HANGS, KILLS, NO_MEMORY, NOT_A_NUMBER, RAISES

pytestmark = pytest.mark.slow

FAILED = "500 prediction_failed"


@pytest.fixture(scope="module")
def there() -> Iterator[cluster.Cluster]:
    # Shipped, a frozen replica is found after 40 s, as `scripts/torture.py faults` measures.
    with cluster.cluster(health_check_period_s=1.0, health_check_timeout_s=5.0) as running:
        yield running


@pytest.mark.parametrize("character", [RAISES, NOT_A_NUMBER, NO_MEMORY])
def test_a_text_that_the_model_fails_on_fails_alone(there: cluster.Cluster, character: str) -> None:
    poison = faults.Poison(there, character)
    seen, _ = cluster.under_load(there, poison, after_s=0.0)
    assert poison.outcome == FAILED
    assert seen.not_right == {}


def test_a_text_that_kills_its_process_fails_alone_and_is_not_tried_again(
    there: cluster.Cluster,
) -> None:
    poison = faults.Poison(there, KILLS)
    seen, back_s = cluster.under_load(there, poison)
    assert poison.outcome == FAILED
    # Both replicas are away at once. Where they take longer to be back than callers may wait for
    # them (`admission.AWAY_S`), as on a slow machine, some are told to come again.
    assert set(seen.not_right) <= {"429 overloaded"}
    assert back_s is not None
    assert there.is_whole()


def test_a_killed_ingress_loses_no_more_than_it_held(there: cluster.Cluster) -> None:
    seen, back_s = cluster.under_load(there, lambda: cluster.kill(there, "Tokenizer"))
    assert back_s is not None
    assert sum(seen.not_right.values()) < 10, seen


def test_a_frozen_replica_loses_no_request_and_is_replaced(there: cluster.Cluster) -> None:
    seen, back_s = cluster.under_load(
        there, lambda: cluster.kill(there, "Classifier", signal.SIGSTOP)
    )
    assert back_s is not None
    assert seen.not_right == {}


def test_a_text_that_the_model_hangs_with_fails_alone(there: cluster.Cluster) -> None:
    before = set(there.pids("Classifier"))
    poison = faults.Poison(there, HANGS)
    seen, back_s = cluster.under_load(there, poison)
    assert poison.outcome == FAILED
    assert seen.not_right == {}
    # The one that it hung with ends itself and is replaced; the other had no part in it.
    assert (poison.deaths, back_s is None) == (1, False)
    assert len(before & set(there.pids("Classifier"))) == 1


@pytest.mark.trials  # test_model_updates.py has updates of all replicas too, to other models
def test_an_update_of_all_replicas_fails_no_request(there: cluster.Cluster) -> None:
    seen, back_s = cluster.under_load(there, lambda: updates.new_replicas(there))
    assert back_s is not None
    assert seen.not_right == {}


@pytest.mark.trials  # serve/test_models.py and test_model_updates.py have others that fail
def test_a_model_that_fails_its_checks_does_not_replace_the_old_one(
    there: cluster.Cluster, tmp_path: Path
) -> None:
    unfit = unfit_models(tmp_path)["that int8 is too coarse for"]
    seen, said = updates.update_to(there, unfit)
    assert said
    assert seen.not_right == {}


@pytest.mark.trials  # serve/test_autoscaling.py has fewer replicas too
def test_fewer_replicas_fail_no_request(there: cluster.Cluster) -> None:
    seen, back_s = cluster.under_load(there, updates.fewer(there, updates.FEWER))
    assert back_s is not None
    assert seen.not_right == {}


def test_what_was_accepted_before_the_stop_is_answered() -> None:
    before, after, _ = updates.stopped(signal.SIGTERM)
    assert set(before) == {RIGHT}
    assert set(after) <= {RIGHT, *updates.REFUSED}
