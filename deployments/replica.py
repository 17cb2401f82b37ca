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
    """Send our log records where Serve's go, from `level` up, and keep callers' mistakes out."""
    serve = logging.getLogger("ray.serve")
    serve.addFilter(_is_worth_a_log)
    ours = logging.getLogger("deployments")
    ours.setLevel(level)
    ours.handlers = serve.handlers
    ours.propagate = not ours.handlers


def _is_worth_a_log(record: logging.LogRecord) -> bool:
    """Serve logs an error and a traceback for whatever a replica raises; a caller's mistake and a
    full queue deserve neither."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, ServiceError):
        return True
    record.msg, record.args, record.exc_info = f"{record.getMessage()} {error.code}", None, None
    return error.status >= 500


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
