"""What crosses processes: errors with their types, logs without callers' mistakes."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve._private.common import ServeComponentType
from ray.serve._private.logging_utils import configure_component_logger, log_access_log_filter
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.schema import LoggingConfig

from deployments.http.schemas import ClassifyRequest
from deployments.launch.log_lines import parsed
from deployments.pipeline.errors import (
    EmptyText,
    NotReady,
    Overloaded,
    PredictionFailed,
    ServiceError,
)
from deployments.pipeline.types import Encoded, TextInput
from deployments.replica.base import (
    as_service_error,
    made_for_good,
    raises_service_errors,
    set_log_level,
)


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
    logger = logging.getLogger("deployments.pipeline.batcher")
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


def serve_logger(file: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """As Serve sets it up in a replica under the throughput flag, with the output beside it."""
    monkeypatch.setattr("ray.serve._private.logging_utils.RAY_SERVE_LOG_TO_STDERR", True)
    configure_component_logger(
        component_name="classify_Tokenizer",
        component_id="abc",
        component_type=ServeComponentType.REPLICA,
        logging_config=LoggingConfig(encoding=encoding, logs_dir=str(file.parent)),
        max_bytes=0,
        backup_count=0,
        buffer_size=1_000,
    )
    return logging.getLogger("ray.serve")


@pytest.mark.parametrize("encoding", ["TEXT", "JSON"])
def test_what_a_replica_says_is_in_its_file_at_once_and_on_stdout_in_json(
    tmp_path: Path,
    encoding: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    records: list[logging.LogRecord],
) -> None:
    serve = logging.getLogger("ray.serve")
    serve.handlers = []
    serve_logger(tmp_path / "x.log", encoding, monkeypatch)
    set_log_level("INFO")
    logging.getLogger("deployments.x").info("hello", extra={"request_id": "id-1", "texts": 3})
    (path,) = tmp_path.glob("*.log")
    lines = path.read_text().splitlines()
    assert len(lines) == 1, "it waits in Serve's buffer"
    printed = capsys.readouterr()
    if encoding == "TEXT":
        assert lines[0].endswith("classify_Tokenizer abc id-1 -- hello")
        assert printed.err.splitlines() == lines
    else:
        assert printed.out.splitlines() == lines
        told = json.loads(lines[0])
        assert (told["message"], told["request_id"], told["texts"]) == ("hello", "id-1", 3)
        assert told["deployment"] == "classify_Tokenizer"
    line = parsed(lines[0])
    assert line is not None
    assert (line.source, line.process, line.request_id) == ("Tokenizer", "abc", "id-1")


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


TEXT = "张三的地址"


def formatted(records: list[logging.LogRecord]) -> str:
    return "\n".join(map(logging.Formatter().format, records))


def test_other_failures_are_logged_by_kind_and_place_without_their_words(
    records: list[logging.LogRecord],
) -> None:
    set_log_level("INFO")
    log_as_serve_does(ValueError(f"no float: {TEXT}"))
    log_as_serve_does(as_ray_raises(RuntimeError(TEXT)))
    first, second = (record.getMessage() for record in records)
    assert re.fullmatch(r"Request failed\. ValueError at \S+/test_replica\.py:\d+", first)
    assert second.startswith("Request failed. RayTaskError(RuntimeError) at ")
    assert TEXT not in formatted(records)


def test_nor_do_asyncio_and_uvicorn_tell_them(caplog: pytest.LogCaptureFixture) -> None:
    set_log_level("INFO")

    async def fail() -> None:
        raise RuntimeError(TEXT)

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    asyncio.run(forget())
    try:
        raise RuntimeError(TEXT)
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("Task exception was never retrieved RuntimeError at ")
    assert said[1].startswith("Exception in ASGI application RuntimeError at ")
    assert TEXT not in formatted(caplog.records)


def test_what_holds_texts_shows_none_in_its_repr() -> None:
    ids = np.asarray([6930, 704, 7], np.int32)
    held = [
        TextInput(TEXT, TEXT),
        Encoded(ids, np.asarray([3], np.int32)),
        ClassifyRequest(text=[TEXT], text_pair=TEXT),
    ]
    assert TEXT not in repr(held)
    assert "6930" not in repr(held)


def test_a_process_that_aborts_leaves_no_core(tmp_path: Path) -> None:
    """Started where cores are allowed; whether the kernel would write one here, control says."""
    start = (
        "import os, resource as r; h = r.getrlimit(r.RLIMIT_CORE)[1]; "
        "r.setrlimit(r.RLIMIT_CORE, (h, h)); "
    )
    forbid = "from deployments.privacy.coredump import forbid_core_dumps as f; f(); "
    for forbidden in (forbid, ""):
        code = f"{start}{forbidden}os.abort()"
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=False)
        assert ended.returncode == -signal.SIGABRT
        if forbidden:
            assert list(tmp_path.iterdir()) == []
    pattern = Path("/proc/sys/kernel/core_pattern")
    allowed = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    if allowed and pattern.exists() and pattern.read_text().strip() == "core":
        assert len(list(tmp_path.iterdir())) == 1


def test_setting_the_level_again_adds_nothing_twice(records: list[logging.LogRecord]) -> None:
    for _ in range(3):
        set_log_level("INFO")
    log_as_serve_does(ServiceError("why"))
    assert [record.getMessage() for record in records] == ["Request failed. internal_error"]


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        ("66f1fe44-ab12", "66f1fe44-ab12"),
        ("order:66/a=", "order:66/a="),
        ("x" * 128, "x" * 128),
        ("x" * 129, "-"),
        ("张三的地址", "-"),
        ("where Zhang San lives", "-"),
        ("a\nforged line", "-"),
    ],
)
def test_a_request_id_that_may_be_a_text_is_not_logged(
    records: list[logging.LogRecord], sent: str, logged: str
) -> None:
    set_log_level("INFO")
    logging.getLogger("deployments").warning("about a request", extra={"request_id": sent})
    assert records[0].request_id == logged  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_what_leaves_a_replica_is_an_error_of_ours(
    records: list[logging.LogRecord],
) -> None:
    set_log_level("INFO")

    @raises_service_errors
    async def predict(text: str) -> str:
        if text == TEXT:
            raise RuntimeError(text)
        raise EmptyText("text is empty.")

    with pytest.raises(EmptyText):
        await predict("")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        await predict()  # type: ignore[call-arg]
    with pytest.raises(ServiceError) as caught:
        await predict(TEXT)
    assert type(caught.value) is ServiceError
    assert caught.value.__context__ is None
    (record,) = records
    assert record.getMessage().startswith("predict failed: RuntimeError at ")
    assert TEXT not in formatted(records)


def test_what_is_made_for_good_is_left_alone_by_pythons_collector():
    frozen = gc.get_freeze_count()
    try:
        with made_for_good():
            assert not gc.isenabled()
            kept = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= frozen + len(kept)
    finally:
        gc.unfreeze()
    with pytest.raises(RuntimeError), made_for_good():
        raise RuntimeError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
