"""What Serve's controller says of the application that a replica belongs to."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException

# One question to the controller serves all who ask meanwhile, however many pages are open.
KEPT_S = 2.0
ASK_TIMEOUT_S = 5.0

Seen = tuple[str, dict[str, Any] | None, list[dict[str, Any]]]
"""This replica's name, its application and the deployments, as `GET /state` shows them."""


class ClusterView:
    """Asks at most every `KEPT_S` seconds, off the event loop, and only while somebody looks."""

    def __init__(self) -> None:
        self._seen: Seen = ("", None, [])
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def seen(self) -> Seen:
        """What was last seen, where the controller does not answer; nothing outside of Serve."""
        async with self._asking:
            if time.monotonic() >= self._until:
                try:
                    async with asyncio.timeout(ASK_TIMEOUT_S):
                        self._seen = await _look()
                except (RayServeException, TimeoutError):
                    pass
                self._until = time.monotonic() + KEPT_S
            return self._seen


async def _look() -> Seen:
    context = serve.get_replica_context()
    name = context.replica_id.unique_id
    applications = (await asyncio.to_thread(serve.status)).applications
    app = applications.get(context.app_name)
    if app is None:
        return name, None, []
    deployments = [
        {
            "name": one,
            "status": overview.status.value,
            "replicas": {str(state): n for state, n in overview.replica_states.items() if n},
        }
        for one, overview in app.deployments.items()
    ]
    return name, {"name": context.app_name, "status": app.status.value}, deployments
