"""What all three deployments share: logs, live settings, and errors across processes."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from logging.handlers import MemoryHandler
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError
from ray._common.formatters import JSONFormatter
from ray.exceptions import RayError, RayTaskError
from ray.serve._private.logging_utils import log_access_log_filter
from ray.serve.context import _get_internal_replica_context, _get_serve_request_context
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from deployments.config.keys import validation_problems
from deployments.pipeline.errors import (
    NotReady,
    Overloaded,
    ServiceError,
    kind_and_place,
    loggable_id,
)
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.retry import LostReplica
from deployments.scaling.files import write_beside_log
from deployments.scaling.policy import BUSY, BusyClock
from deployments.scaling.starts import START_FILE, Start

logger = logging.getLogger(__name__)

Live = TypeVar("Live", bound=BaseModel)
P = ParamSpec("P")
T = TypeVar("T")

# Serve logs what its replicas raise, asyncio what nobody awaited, uvicorn what ends a connection:
# each with the message and the traceback, which may quote a text.
_LOG_EXCEPTIONS = ("ray.serve", "asyncio", "uvicorn.error")

LOST_REPLICA = (RayError, ReplicaUnavailableError)
"""What a handle raises when the replica died with the call on it (RayTaskError set apart)."""


def set_log_level(level: str) -> None:
    """Send our log records where Serve's go, from `level` up, and keep callers' mistakes out."""
    serve = logging.getLogger("ray.serve")
    for name in _LOG_EXCEPTIONS:
        logging.getLogger(name).addFilter(_worth_a_log_without_its_text)
    for handler in serve.handlers:
        handler.addFilter(_with_a_plain_id)
    dropped = all(log_access_log_filter in handler.filters for handler in serve.handlers)
    if dropped and serve.level == logging.INFO:
        # Serve makes its access log's record of every call only to drop it then: 4 % of our time.
        serve.setLevel(logging.WARNING)
    for handler in serve.handlers:
        if isinstance(handler, MemoryHandler):
            _write_ours_at_once(handler)
    _stream_as_the_file(serve.handlers)
    ours = logging.getLogger("deployments")
    ours.setLevel(level)
    ours.handlers = serve.handlers
    ours.propagate = not ours.handlers


def _write_ours_at_once(handler: MemoryHandler) -> None:
    """With the throughput flags Serve keeps up to 1,000 records in memory, and what a replica had
    said was gone with it. Ours are few: of the request path only a bounded number of errors."""

    def should_flush(record: logging.LogRecord) -> bool:
        ours = record.name.startswith("deployments")
        return ours or MemoryHandler.shouldFlush(handler, record)

    handler.shouldFlush = should_flush  # type: ignore[method-assign]


def _stream_as_the_file(handlers: list[logging.Handler]) -> None:
    """Where Serve's log also goes to the process's output (RAY_SERVE_LOG_TO_STDERR=1) and its
    encoding is JSON: to stdout, in JSON. Serve itself writes text to stderr whatever it is."""
    files = [handler for handler in handlers if isinstance(handler, MemoryHandler)]
    for file in files:
        as_json = file.target and file.target.formatter
        if not isinstance(as_json, JSONFormatter):
            return
        for handler in handlers:
            if type(handler) is logging.StreamHandler and handler.formatter is not as_json:
                handler.setFormatter(as_json)
                handler.setStream(sys.stdout)
                for found in file.filters:
                    handler.addFilter(found)


@contextmanager
def made_for_good() -> Iterator[None]:
    """What is made within lives as long as the process: Python's collector never looks at it.

    transformers and torch are 370,000 objects. To look through them again and again takes a fifth
    of the time that importing them takes, and 0.23 s, in which nobody is answered, ever after.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def write_start(start: Start) -> None:
    """For `rayclassify status --starts`; nothing outside of Serve."""
    context = _get_internal_replica_context()
    if context is not None:
        name = START_FILE.format(
            app=context.app_name,
            deployment=context.deployment,
            replica=context.replica_id.unique_id,
        )
        write_beside_log(name, start.to_json())


class Replica:
    """What the three deployments' classes have in common: they say how busy they are, and why they
    end."""

    _stopped = False
    _busy: BusyClock | None = None
    _observer: Observer = SILENT

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve several times a second."""
        if self._busy is None:
            self._busy = BusyClock()
        stats = self._stats(self._busy)
        self._observer.working(stats)
        return stats

    def _stats(self, busy: BusyClock) -> dict[str, float]:
        """The event loop's share of a core."""
        return {BUSY: busy.share(time.thread_time())}

    def __del__(self) -> None:
        """Called by Serve when it stops a replica; and once more, or elsewhere, by Python."""
        if not self._stopped and _get_internal_replica_context() is not None:
            self._stopped = True
            logger.info("this replica ends: Serve stops it (fewer replicas, an update, a shutdown)")


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
        problems = validation_problems(exc, user_config, model)
        logger.error(
            "user_config is refused and the old one stays, but no new replica starts until it is "
            "right; `rayclassify check` finds this before it is deployed: %s",
            "; ".join(str(problem) for problem in problems),
        )
        return old


def _with_a_plain_id(record: logging.LogRecord) -> bool:
    """Serve puts the caller's x-request-id into every line, whatever it holds."""
    if request_id := getattr(record, "request_id", None):
        record.request_id = loggable_id(request_id)
    return True


def raises_service_errors(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """For methods that handles call: what leaves them is a ServiceError.

    Ray and Serve keep, log and trace the message and the traceback of whatever leaves a replica.
    """

    @wraps(method)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        called = method(*args, **kwargs)  # its TypeErrors name no values
        try:
            return await called
        except (ServiceError, LostReplica):
            raise
        except Exception as exc:
            logger.error("%s failed: %s", method.__name__, kind_and_place(exc))
        # Not in there: the other error, and the texts in its frames, would come along as context.
        raise ServiceError()

    return guarded


def request_id_of_call() -> str:
    """The id that Serve gave the call that this task answers; empty outside of one."""
    request_id: str = _get_serve_request_context().request_id
    return request_id


def _worth_a_log_without_its_text(record: logging.LogRecord) -> bool:
    """Serve logs an error and a traceback for whatever a replica raises; a caller's mistake and a
    full queue deserve neither, and no error's own words belong in a log."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    ours = error if isinstance(error, ServiceError) else None
    # asyncio goes on, on a second line, with the repr of the error.
    said = record.getMessage().partition("\n")[0]
    record.msg = f"{said} {ours.code if ours else kind_and_place(error)}"
    record.args = record.exc_info = record.exc_text = None
    return ours is None or ours.status >= 500


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
