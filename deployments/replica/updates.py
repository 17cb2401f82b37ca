"""What a replica sees of an update of its application: others that serve, and how it went."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException

from deployments.deploying.serve_state import RUNNING, read_application
from deployments.settings import ModelSettings

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 5.0
# A handle that has just been made may not have heard of the replicas yet.
_ASK_TIMES = 3
_LOOK_EVERY_S = 2.0


async def wait_for_the_last_of(fingerprint: str, own: str) -> None:
    """Returns when no other replica of this deployment serves the model with that fingerprint.

    For a replica that finds its directory changed since it was deployed: those that have the old
    files in memory serve on, and the new one takes over where none of them is left.
    """
    waited = False
    while fingerprint in await _served_by_others():
        if not waited:
            logger.warning(
                "the model's directory was changed after it was deployed (fingerprint %s, now %s). "
                "This replica waits while others have the old one. Deploy the config again with "
                "`rayclassify deploy` to update all of them.", fingerprint[:12], own[:12],
            )  # fmt: skip
        waited = True
        await asyncio.sleep(_LOOK_EVERY_S)
    logger.error(
        "no replica has the model that was deployed (fingerprint %s) any more, and its directory "
        "was changed: this one serves what is there now (%s). Deploy the config again with "
        "`rayclassify deploy`.", fingerprint[:12], own[:12],
    )  # fmt: skip


async def _served_by_others() -> set[str]:
    """Fingerprints that the running replicas of this deployment have."""
    context = serve.get_replica_context()
    handle = serve.get_deployment_handle(context.deployment, context.app_name)
    for attempt in range(_ASK_TIMES):
        try:
            asked = handle.broadcast("fingerprint")
            told = await asked.results_async(timeout_s=ASK_TIMEOUT_S, return_exceptions=True)
        except Exception as exc:
            logger.debug("no replica answers: %s", type(exc).__name__)
            told = []
        if found := {one for one in told if isinstance(one, str)}:
            return found
        if attempt < _ASK_TIMES - 1:
            await asyncio.sleep(1.0)
    return set()


async def update_state(
    deployed: ModelSettings, model: str, revision: str | None
) -> dict[str, Any] | None:
    """What of the last update does not serve, as `/info` shows it; None where all is as deployed.

    deployed: of the replica that asks, which may be of the old application or of the new one.
    model, revision: what serves.
    """
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            app_name = serve.get_replica_context().app_name
            status = await asyncio.to_thread(serve.status)
    except (RayServeException, TimeoutError):
        return None
    if app_name not in status.applications:
        return None
    # As the REST API has it: values instead of enumerations.
    told = json.loads(json.dumps(asdict(status.applications[app_name])))
    app = read_application(app_name, told)
    other = (deployed.id, deployed.revision) != (model, revision)
    if app.status == RUNNING and not other:
        return None
    return {
        "status": app.status,
        "model": deployed.id if other else None,
        "revision": deployed.revision if other else None,
        "message": " ".join(app.reasons()[-2:]),
    }
