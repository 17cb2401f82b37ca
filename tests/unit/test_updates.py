"""What `/info` says of an update that does not serve, from what Serve tells a replica."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ServeStatus,
)

from deployments.replica.updates import update_state
from deployments.settings import ModelSettings

TRACEBACK = """The deployment failed to start 3 times in a row. Error:
Traceback (most recent call last):
deployments.model.source.ModelRefused: model 'new' has no weights
"""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    def tell(status: ApplicationStatus, message: str = "") -> dict[str, Any] | None:
        from ray.serve._private.common import (
            DeploymentStatus,
            DeploymentStatusTrigger,
            ReplicaState,
        )

        classifier = DeploymentStatusOverview(
            DeploymentStatus.UPDATING,
            DeploymentStatusTrigger.CONFIG_UPDATE_STARTED,
            {ReplicaState.RUNNING: 1},
            message,
        )
        app = ApplicationStatusOverview(status, "", 1.0, {"Classifier": classifier})
        monkeypatch.setattr(
            serve, "get_replica_context", lambda: SimpleNamespace(app_name="classify")
        )
        monkeypatch.setattr(serve, "status", lambda: ServeStatus(applications={"classify": app}))
        return asyncio.run(update_state(ModelSettings(id="new"), "new", None))

    return tell


def test_all_as_deployed_says_nothing(told: Any) -> None:
    assert told(ApplicationStatus.RUNNING) is None


def test_a_failed_update_says_why_as_deploy_does(told: Any) -> None:
    assert told(ApplicationStatus.DEPLOY_FAILED, TRACEBACK) == {
        "status": "DEPLOY_FAILED",
        "model": None,
        "revision": None,
        "message": "Classifier: ModelRefused: model 'new' has no weights",
    }


def test_an_update_under_way_has_nothing_to_say_yet(told: Any) -> None:
    state = told(ApplicationStatus.DEPLOYING)
    assert (state["status"], state["message"]) == ("DEPLOYING", "")
