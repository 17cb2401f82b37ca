"""`scripts/cluster_trial.py`, shortened: the head lost under load, replicas on seven nodes."""

from __future__ import annotations

import pytest

from tests.trials import failover, machines, nodes

pytestmark = [pytest.mark.slow, pytest.mark.trials]


@pytest.mark.skipif(machines.why_not() is not None, reason=str(machines.why_not()))
def test_a_head_killed_and_started_again_fails_no_request() -> None:
    case = failover.CASES[0]
    with failover.serving(with_redis=True) as there:
        doors, whole = failover.lost(there, case)
    assert whole, doors.log
    assert failover.Seen(doors.rows).not_right == {}
    assert there.redis is not None


def test_classifiers_take_gpu_nodes_and_nothing_else_does() -> None:
    with nodes.nodes() as there:
        there.deploy(nodes.options({**nodes.REPLICAS, "Classifier": nodes.MOST}, surge=0))
        seen = there.where()
    assert seen["pools"] == {
        "Tokenizer": {"cpu": 2},
        "Classifier": {"gpu": nodes.MOST},
        "Postprocessor": {"cpu": 2},
    }
    assert set(seen["nodes"]["Classifier"]) == {nodes.GPUS}
