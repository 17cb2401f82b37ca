"""rayclassify_client against the real application over real HTTP, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from api.stand_in import LIMITS, LengthClassifier
from served import serving

from deployments.http.app import create_app
from deployments.pipeline import errors as theirs
from rayclassify_client import Answer, AsyncClient, Client, ServiceError, errors


@pytest.fixture(scope="module")
def service() -> LengthClassifier:
    return LengthClassifier()


@pytest.fixture(scope="module")
def url(service: LengthClassifier) -> Iterator[str]:
    limits = LIMITS.model_copy(update={"max_batch_texts": 64, "max_body_bytes": 100_000})
    with serving(create_app(service, limits)) as address:
        yield address


class Misbehaving:
    """Gives `answers` in turn: (status, headers, body), or None to hang up. The last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.bodies: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.times.append(time.monotonic())
                content = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(json.loads(content))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Misbehaving:
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()


GOOD = b'{"label":"a","score":0.9,"scores":{"a":0.9,"b":0.1},"tokens":3,"truncated":false}'
OK = (200, {}, GOOD)


def refusal(status: int, code: str, retry_after: str = "0") -> Any:
    body = json.dumps({"error": {"code": code, "message": "Not now.", "request_id": "r7"}})
    return status, {"retry-after": retry_after}, body.encode()


def test_one_text(url: str) -> None:
    with Client(url) as client:
        answer = client.classify("这是一个示例文本")
    assert answer == Answer("short", 1.0, {"long": 0.0, "short": 1.0}, 8, False)
    assert answer.raw["label"] == "short"


def test_many_texts_come_in_order_with_a_bad_one_in_its_place(url: str) -> None:
    texts = ["x" * (i % 20 + 1) for i in range(300)]
    texts[150] = "  "
    with Client(url) as client:
        results = list(client.classify_many(texts, batch_size=7, concurrency=5))
    told = ["long" if len(text) > 10 else "short" for text in texts]
    assert [r.label if isinstance(r, Answer) else r.code for r in results] == [
        *told[:150], "empty_text", *told[151:],
    ]  # fmt: skip


def test_texts_are_read_as_they_are_needed(url: str) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "text"

    with Client(url) as client:
        results = client.classify_many(endless(), batch_size=8, concurrency=3)
        for _ in range(20):
            next(results)
        results.close()
    assert read <= 20 + 8 * 3 + 8


def test_the_asynchronous_client_says_the_same(url: str) -> None:
    async def ask() -> tuple[Answer, list[Any]]:
        async with AsyncClient(url) as client:
            one = await client.classify("short")
            many = [r async for r in client.classify_many(["a", "", "b" * 11] * 30, batch_size=4)]
        return one, many

    one, many = asyncio.run(ask())
    assert one.label == "short"
    told = [r.label if isinstance(r, Answer) else r.code for r in many]
    assert told == ["short", "empty_text", "long"] * 30


def test_options_are_the_fields_of_the_request() -> None:
    with Misbehaving(OK) as server:
        options = {"top_k": 1, "raw_scores": True, "truncation": False, "priority": "bulk"}
        with Client(server.url, key="rck_1", timeout_s=5.0, **options) as client:
            client.classify("a", "b")
    (body,) = server.bodies
    assert {name: body[name] for name in options} == options
    assert (body["text"], body["text_pair"]) == ("a", "b")
    assert 4_000 < body["timeout_ms"] < 5_000


@pytest.mark.parametrize("answer", [refusal(429, "overloaded"), refusal(503, "not_ready"), None])
def test_what_passes_is_waited_out(answer: Any) -> None:
    with Misbehaving(answer, answer, OK) as server, Client(server.url) as client:
        assert client.classify("a").label == "a"
    assert len(server.times) == 3


def test_it_comes_back_when_the_service_says() -> None:
    with Misbehaving(refusal(429, "overloaded", "1"), OK) as server, Client(server.url) as client:
        client.classify("a")
    first, second = server.times
    assert second - first >= 1.0


def test_a_wait_beyond_the_time_is_told_at_once() -> None:
    answer = refusal(429, "quota_exceeded", "40000")
    with Misbehaving(answer) as server, Client(server.url) as client:
        with pytest.raises(errors.QuotaExceeded) as caught:
            client.classify("a")
        (one,) = client.classify_many(["b"])
    assert (caught.value.retry_after_s, caught.value.request_id) == (40_000, "r7")
    assert isinstance(one, errors.QuotaExceeded)
    assert len(server.times) == 2


@pytest.mark.parametrize("code", ["invalid_input", "unauthorized", "text_too_long"])
def test_what_does_not_pass_is_asked_once(code: str) -> None:
    status = errors.BY_CODE[code].status
    kind = errors.BY_CODE[code]
    with (
        Misbehaving(refusal(status, code)) as server,
        Client(server.url) as client,
        pytest.raises(kind, match="Not now"),
    ):
        client.classify("a")
    assert len(server.times) == 1


def test_a_silent_service_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = Client(address, timeout_s=0.3)
        with client, pytest.raises(errors.NoAnswer, match=r"0\.3 s"):
            client.classify("a")


def test_nobody_there_and_somebody_else_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            Client(address) as client,
            pytest.raises(errors.Unreachable, match="rayclassify serve"),
        ):
            client.classify("a")
    for body in (b"<html>", b"[]", b"{}", b'{"error":{}}', b'{"error":"x"}', b'{"label":1}'):
        for status in (200, 404):
            with (
                Misbehaving((status, {}, body)) as server,
                Client(server.url) as client,
                pytest.raises(errors.NotThisService),
            ):
                client.classify("a")
    with Client("ftp://example.org") as client, pytest.raises(errors.NotThisService):
        client.classify("a")


def test_the_tree_of_errors_is_the_services_own() -> None:
    def tree(kind: type[Exception]) -> dict[str, Any]:
        return {
            below.__name__: (below.status, below.code, tree(below))  # type: ignore[attr-defined]
            for below in kind.__subclasses__()
            if not below.__name__.startswith("_")
        }

    flat = tree(theirs.ServiceError)
    for below in theirs._Retryable.__subclasses__():
        flat[below.__name__] = (below.status, below.code, tree(below))
    assert tree(errors.ServiceError) == flat
    error = errors.error_of({"code": "new_one", "message": "Hm.", "request_id": None})
    assert (type(error), error.message) == (ServiceError, "Hm.")


def test_errors_can_be_pickled_and_a_key_is_in_no_repr() -> None:
    error = pickle.loads(pickle.dumps(errors.NotReady("Wait.", "r1", 2.0)))  # noqa: S301
    assert (error.message, error.request_id, error.retry_after_s) == ("Wait.", "r1", 2.0)
    client = Client("http://127.0.0.1:1", key="rck_secret")
    assert "rck_secret" not in repr(client._options)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"concurrency": 0}])
def test_senseless_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        next(Client("http://127.0.0.1:1").classify_many(["a"], **wrong))


def test_a_bar_is_shown_where_it_is_asked_for(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Client(url) as client:
        assert len(list(client.classify_many(["a"] * 100, progress=True))) == 100
    assert "100/100" in capfd.readouterr().err


def test_it_brings_nothing_of_ours_along() -> None:
    code = (
        "import sys, rayclassify_client; "
        "print([m for m in ('ray', 'torch', 'numpy', 'deployments', 'tqdm') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
