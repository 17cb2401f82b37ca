"""What all three deployments share: logs, live settings, and errors across processes."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ray.exceptions import RayError, RayTaskError
from ray.serve._private.logging_utils import log_access_log_filter
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from deployments.config_keys import unknown_keys, validation_problems
from deployments.core.errors import NotReady, Overloaded, ServiceError

logger = logging.getLogger(__name__)

Live = TypeVar("Live", bound=BaseModel)

LOST_REPLICA = (RayError, ReplicaUnavailableError)
"""What a handle raises when the replica died with the call on it (RayTaskError set apart)."""


def set_log_level(level: str) -> None:
    """Send our log records where Serve's go, from `level` up, and keep callers' mistakes out."""
    serve = logging.getLogger("ray.serve")
    serve.addFilter(_is_worth_a_log)
    dropped = all(log_access_log_filter in handler.filters for handler in serve.handlers)
    if dropped and serve.level == logging.INFO:
        # Serve makes its access log's record of every call only to drop it then: 4 % of our time.
        serve.setLevel(logging.WARNING)
    ours = logging.getLogger("deployments")
    ours.setLevel(level)
    ours.handlers = serve.handlers
    ours.propagate = not ours.handlers


def live_settings(model: type[Live], user_config: dict[str, Any], old: Live | None) -> Live:
    """The settings in force from now on; `old` is None when the replica starts.

    Serve stops every replica that refuses a new user_config, so one wrong value would take the
    whole service down: the old settings stay, and the log says what was wrong.

    Raises:
        pydantic.ValidationError: wrong from the start.
    """
    try:
        return model.model_validate(user_config)
    except ValidationError as exc:
        if old is None:
            raise
        problems = [*unknown_keys(user_config, model), *validation_problems(exc, user_config)]
        logger.error(
            "user_config is refused and the old one stays; `rayclassify check` finds this before "
            "it is deployed: %s",
            "; ".join(str(problem) for problem in problems),
        )
        return old


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
