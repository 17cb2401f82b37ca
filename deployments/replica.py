"""What all three deployments share: logs that reach Serve's files, and errors across processes."""

from __future__ import annotations

import logging

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from deployments.core.errors import NotReady, Overloaded, ServiceError

LOST_REPLICA = (RayError, ReplicaUnavailableError)
"""What a handle raises when the replica died with the call on it (RayTaskError set apart)."""


def set_log_level(level: str) -> None:
    """Send our own log records where Serve's go, from `level` up."""
    ours = logging.getLogger("deployments")
    ours.setLevel(level)
    ours.handlers = logging.getLogger("ray.serve").handlers
    ours.propagate = not ours.handlers


def as_service_error(exc: Exception) -> ServiceError | None:
    """The typed error behind what a handle raised, or None where there is none."""
    cause = exc.cause if isinstance(exc, RayTaskError) else exc
    if isinstance(cause, ServiceError):
        return cause
    if isinstance(cause, BackPressureError):
        return Overloaded("The classifier's queue is full. Retry later, or add replicas.")
    if isinstance(cause, DeploymentUnavailableError):
        return NotReady("The classifier can't be reached. It may still be starting; retry later.")
    return None
