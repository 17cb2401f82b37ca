"""What crosses processes: errors with their types, logs without callers' mistakes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve._private.logging_utils import log_access_log_filter
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.core.errors import (
    EmptyText,
    NotReady,
    Overloaded,
    PredictionFailed,
    ServiceError,
)
from deployments.replica import as_service_error, set_log_level


def as_ray_raises(cause: Exception) -> Exception:
    """What `await handle.remote()` raises where the replica raised `cause`."""
    error: Exception = RayTaskError("predict", "a traceback", cause).as_instanceof_cause()
    return error


def test_a_typed_error_is_found_behind_rays() -> None:
    found = as_service_error(as_ray_raises(Overloaded("full", 7.0)))
    assert type(found) is Overloaded
    assert (found.message, found.retry_after_s) == ("full", 7.0)
    assert str(found) == "full"  # Ray's own str() is a traceback with addresses


def test_what_serve_raises_becomes_ours() -> None:
    full = as_service_error(BackPressureError(num_queued_requests=2, max_queued_requests=1))
    gone = as_service_error(DeploymentUnavailableError(None))
    assert type(full) is Overloaded
    assert type(gone) is NotReady


def test_anything_else_is_not_ours() -> None:
    assert as_service_error(as_ray_raises(ValueError("a secret text"))) is None
    assert as_service_error(ActorDiedError()) is None


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """All that reaches the handlers of Serve's logger."""
    serve, ours = logging.getLogger("ray.serve"), logging.getLogger("deployments")
    before = [serve.handlers, serve.filters, serve.level, ours.handlers, ours.level, ours.propagate]
    seen: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    serve.handlers = [Keep()]
    yield seen
    serve.handlers, serve.filters, serve.level, *rest = before  # type: ignore[assignment]
    ours.handlers, ours.level, ours.propagate = rest  # type: ignore[assignment]
    serve.setLevel(serve.level)  # forgets what it remembers of levels


def log_as_serve_does(error: Exception) -> None:
    try:
        raise error
    except Exception:
        logging.getLogger("ray.serve").exception("Request failed.")


def test_our_records_go_where_serves_go_from_the_level_up(
    records: list[logging.LogRecord],
) -> None:
    set_log_level("WARNING")
    logger = logging.getLogger("deployments.core.batcher")
    logger.info("not this")
    logger.warning("but this")
    assert [record.getMessage() for record in records] == ["but this"]


@pytest.mark.parametrize(("kept", "made"), [(True, True), (False, False)])
def test_records_of_calls_are_made_only_where_the_access_log_is_kept(
    records: list[logging.LogRecord], kept: bool, made: bool
) -> None:
    serve = logging.getLogger("ray.serve")
    serve.setLevel("INFO")
    del serve.handlers[1:]  # pytest adds its own
    if not kept:
        serve.handlers[0].addFilter(log_access_log_filter)
    set_log_level("INFO")
    assert serve.isEnabledFor(logging.INFO) == made
    serve.warning("still said")
    assert [record.getMessage() for record in records] == ["still said"]


def test_a_callers_mistake_is_not_logged(records: list[logging.LogRecord]) -> None:
    set_log_level("INFO")
    log_as_serve_does(EmptyText("text is empty."))
    log_as_serve_does(as_ray_raises(Overloaded("full")))
    assert records == []


def test_our_own_failures_are_logged_by_code_without_a_traceback(
    records: list[logging.LogRecord],
) -> None:
    set_log_level("INFO")
    log_as_serve_does(PredictionFailed("why"))
    (record,) = records
    assert record.getMessage() == "Request failed. prediction_failed"
    assert record.exc_info is None


def test_other_failures_keep_their_traceback(records: list[logging.LogRecord]) -> None:
    set_log_level("INFO")
    log_as_serve_does(ZeroDivisionError())
    assert records[0].exc_info is not None


def test_setting_the_level_again_adds_nothing_twice(records: list[logging.LogRecord]) -> None:
    for _ in range(3):
        set_log_level("INFO")
    log_as_serve_does(ServiceError("why"))
    assert [record.getMessage() for record in records] == ["Request failed. internal_error"]
