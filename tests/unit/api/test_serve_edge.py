"""Around Serve's part of a request: its switches out of callers' hands, its errors in our shape."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployments.http import responses
from deployments.http.request_log import RequestLog
from deployments.http.serve_edge import TIMEOUT_S, ServeEdge, middlewares


def ask(headers: list[tuple[bytes, bytes]], status: int = 200, *extra: Any) -> tuple[dict, list]:
    """What an application behind the edge sees, and what leaves it when that says `status`."""
    seen: dict[str, Any] = {}
    sent: list[dict] = []

    async def serve(scope: dict, receive: Any, send: Any) -> None:
        scope["headers"].append((b"x-request-id", b"abc"))  # as Serve's own middleware does
        seen.update(scope)
        answer = [(b"content-type", b"text/plain"), (b"x-request-id", b"abc"), *extra]
        await send({"type": "http.response.start", "status": status, "headers": answer})
        await send({"type": "http.response.body", "body": b"half ", "more_body": True})
        await send({"type": "http.response.body", "body": b"done"})

    async def send(message: dict) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "POST", "path": "/classify", "headers": headers}
    asyncio.run(ServeEdge(serve)(scope, receive, send))
    return seen, sent


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"2.5", 2.5), (b" 7 ", 7.0), (b"1e-9", 1e-9),
        (b"0", None), (b"-1", None), (b"nan", None), (b"inf", None), (b"-inf", None),
        (b"1e999", None), (b"", None), (b"soon", None), (b"\xff", None), (b"9" * 5_000, None),
    ],
)  # fmt: skip
def test_a_time_limit_becomes_our_own_or_nothing(value, seconds):
    seen, sent = ask([(b"a", b"b"), (b"x-request-timeout-seconds", value)])
    assert seen.get(TIMEOUT_S) == seconds
    assert seen["headers"] == [(b"a", b"b"), (b"x-request-id", b"abc")]
    assert sent[0]["status"] == 200


def test_a_caller_that_hangs_up_cannot_keep_its_work_going():
    seen, _ = ask([(b"x-request-disconnect-disabled", b"?1"), (b"a", b"b")])
    assert (b"x-request-disconnect-disabled", b"?1") not in seen["headers"]
    assert TIMEOUT_S not in seen


def test_headers_that_serve_cannot_decode_do_not_reach_it():
    good = [(b"x-a", "很好".encode()), (b"x-request-id", b"abc")]
    seen, _ = ask([(b"x-session-id", b"\xff"), *good[:1], (b"x-request-id", b"\xfe\x00")])
    assert seen["headers"] == good


def test_a_caller_that_has_gone_is_no_refusal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process's own leaves lines out where tests before this one were refused as well.
    monkeypatch.setattr(responses, "REQUESTS", RequestLog())
    caplog.set_level("INFO")
    _, (start, *_rest) = ask([], 499)
    assert start["status"] == 499
    assert "refused" not in caplog.text
    ask([], 404)
    assert "refused: not_found" in caplog.text


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "not_found"),
        (408, "deadline_exceeded"),
        (429, "overloaded"),
        (500, "internal_error"),
        (503, "not_ready"),
    ],
)
def test_serves_plain_text_becomes_our_json(status, code):
    _, (start, body) = ask([], status)
    headers = dict(start["headers"])
    assert (start["status"], headers[b"content-type"]) == (status, b"application/json")
    assert headers[b"x-request-id"] == b"abc"
    assert (b"retry-after" in headers) == (status in (429, 503))
    assert body["body"].startswith(b'{"error":{"code":"%s"' % code.encode())
    assert b"half" not in body["body"]


def test_other_answers_pass_as_they_are():
    _, sent = ask([], 200)
    assert [message.get("body", b"") for message in sent] == [b"", b"half ", b"done"]


def test_serve_gets_a_list_of_middlewares():
    assert [middleware.cls for middleware in middlewares()] == [ServeEdge]
