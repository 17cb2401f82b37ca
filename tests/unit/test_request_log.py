"""One line for each refused or failed request, a bounded number of them, and never a text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import without_ray

from deployments.http import request_log
from deployments.http.request_log import LINES, WINDOW_S, RequestLog
from deployments.pipeline.errors import EmptyText, NotReady, Overloaded, ServiceError
from deployments.settings import Settings

pytestmark = pytest.mark.anyio

TEXT = "张三的地址"


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the log of requests says."""
    kept: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    keep, ours = Keep(), logging.getLogger("deployments")
    before = ours.handlers, ours.level, ours.propagate
    request_log.logger.addHandler(keep)
    ours.setLevel(logging.INFO)
    yield kept
    request_log.logger.removeHandler(keep)
    ours.handlers, ours.level, ours.propagate = before


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_overload_is_a_few_lines_and_the_number_of_the_rest(
    records: list[logging.LogRecord],
) -> None:
    clock = Clock()
    log = RequestLog(clock)
    for n in range(500):
        log.refused(Overloaded("full"), f"id-{n}")
    log.refused(EmptyText("empty"), "other")  # has a bound of its own
    assert len(records) == LINES + 1
    clock.now = WINDOW_S
    log.refused(Overloaded("full"), "later")
    rest, later = records[-2:]
    assert rest.getMessage() == (
        f"overloaded (429): {500 - LINES} more requests in 10 s that are not logged one by one"
    )
    assert rest.levelno == logging.WARNING
    assert later.request_id == "later"  # type: ignore[attr-defined]


async def test_the_rest_is_told_although_no_more_come(
    records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "WINDOW_S", 0.01)
    log = RequestLog(lambda: 0.0)
    for _ in range(LINES + 3):
        log.refused(Overloaded("full"), "id")
    await asyncio.sleep(0.1)
    assert "3 more requests" in records[-1].getMessage()


def test_levels_sizes_and_probes(records: list[logging.LogRecord]) -> None:
    log = RequestLog()
    head = [(b"content-length", b"120")]
    log.refused(NotReady("starts"), "probe", {"method": "GET", "headers": []})
    log.refused(NotReady("starts"), "a", {"method": "POST", "headers": head})
    log.refused(ServiceError(), "b", {"method": "POST", "headers": head, request_log.N_TEXTS: 3})
    log.refused(EmptyText("empty"), TEXT)
    told = [(r.levelname, r.request_id, r.getMessage()) for r in records]  # type: ignore[attr-defined]
    assert told == [
        ("INFO", "a", "refused: not_ready (503), 120 bytes"),
        ("WARNING", "b", "failed: internal_error (500), 3 texts, 120 bytes"),
        ("INFO", "-", "refused: empty_text (422)"),
    ]


async def test_each_bad_request_has_a_line_with_its_id_and_one_in_so_many_of_the_good(
    records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RequestLog()
    for place in ("http.responses", "http.classify_route", "tokenizer"):
        monkeypatch.setattr(f"deployments.{place}.REQUESTS", log)
    settings = Settings.model_validate({"limits": {"max_text_chars": 20}})
    tokenizer = without_ray.tokenizer(settings)
    await tokenizer._chain.loading
    transport = httpx.ASGITransport(tokenizer.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

        async def ask(text: Any, id_: str, path: str = "/classify") -> int:
            answer = await client.post(path, json={"text": text}, headers={"x-request-id": id_})
            return answer.status_code

        assert await ask(TEXT * 9, "long") == 413
        assert await ask([TEXT, "", TEXT * 9, ""], "list") == 200
        assert await ask(TEXT, "nowhere", f"/{TEXT}") == 404
        assert await ask(TEXT, "unsaid") == 200
        tokenizer.reconfigure({"access_log_one_in": 2})
        for n in range(4):
            assert await ask([TEXT, TEXT], f"good-{n}") == 200
    with pytest.raises(EmptyText):
        await tokenizer.classify("")

    told = [(record.request_id, record.getMessage()) for record in records]  # type: ignore[attr-defined]
    ids, said = zip(*told, strict=True)
    assert ids == ("long", "list", "nowhere", "good-1", "good-3", "-")
    assert said[0].startswith("refused: text_too_long (413), 1 text, ")
    assert said[1] == "3 of 4 texts failed: empty_text 2, text_too_long 1"
    assert said[2].startswith("refused: not_found (404), ")
    assert said[3].startswith("answered: 200, 2 texts, ")
    assert not any(TEXT in str(vars(record)) for record in records)
