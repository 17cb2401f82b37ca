"""POST /classify/stream: lines in, lines out, both at once."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from stand_in import LIMITS, Client, LengthClassifier

from deployments.access.keys import hash_of, new_token
from deployments.http import stream_route
from deployments.http.app import create_app
from deployments.pipeline.errors import NotReady, Overloaded
from deployments.pipeline.types import TextInput
from deployments.settings import AccessSettings, LimitSettings

PATH = "/classify/stream"


class Held(LengthClassifier):
    """Answers a text once it may. most: texts taken in and not answered, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = self.most = 0
        self.refuses = 0

    async def classify_inputs(self, inputs: Any, timeout_s: float | None = None) -> Any:
        if self.refuses:
            self.refuses -= 1
            raise Overloaded("full", 0.01)
        self.waiting += len(inputs)
        self.most = max(self.most, self.waiting)
        await self.open.wait()
        self.waiting -= len(inputs)
        return await super().classify_inputs(inputs)


class Talk:
    """One connection, over a real socket: what is said and what is heard, both at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def begin(self, *headers: str) -> None:
        lines = [f"POST {PATH} HTTP/1.1", "Host: test", "Transfer-Encoding: chunked", *headers]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())

    async def say(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")

    async def head(self) -> bytes:
        return await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)

    async def hear(self) -> bytes:
        """The next chunk; b"" at the end."""
        size = int(await asyncio.wait_for(self._reader.readline(), 10), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def rest(self) -> list[dict[str, Any]]:
        heard = b""
        while chunk := await self.hear():
            heard += chunk
        return [json.loads(line) for line in heard.splitlines()]

    def hang_up(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def talking(service: LengthClassifier, limits: LimitSettings = LIMITS) -> AsyncIterator[Talk]:
    config = uvicorn.Config(
        create_app(service, limits), port=0, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as mine:
        for one in (listener, mine):  # so that little lies on the way
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        serving = asyncio.create_task(server.serve([listener]))
        mine.connect(listener.getsockname())
        reader, writer = await asyncio.open_connection(sock=mine)
        try:
            yield Talk(reader, writer)
        finally:
            writer.transport.abort()
            server.should_exit = True
            await serving


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never became true")


def line(number: int, text: str = "short", **more: Any) -> bytes:
    return json.dumps({"id": number, "text": text, **more}).encode() + b"\n"


def answered(client: Client, body: bytes, **headers: str) -> list[dict[str, Any]]:
    response = client.request("POST", PATH, content=body, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(one) for one in response.content.splitlines()]


def test_each_line_gets_a_line_in_order_with_its_id(client):
    texts = ["a", "a text that is long", "b"]
    body = b"".join(line(i, text) for i, text in enumerate(texts)) + b'\n{"text": "no id"}'
    rows = answered(client, body)
    assert [row.get("id") for row in rows] == [0, 1, 2, None]
    assert [row["label"] for row in rows] == ["short", "long", "short", "short"]
    assert "id" not in rows[3]
    alone = client.classify({"text": "a"}).json()
    assert rows[0] == {"id": 0, **alone}


def test_options_pairs_and_ids_of_each_line(client, service):
    rows = answered(client, line(1, text_pair="of two halves", top_k=1) + b'{"id":"x","text":"a"}')
    assert [row["id"] for row in rows] == [1, "x"]
    first, second = service.seen
    assert (first.text_pair, first.options.top_k) == ("of two halves", 1)
    assert second.options.top_k is None
    # One flow for all of it, behind those who wait.
    assert first.flow == second.flow
    assert first.flow.priority == "bulk"


@pytest.mark.parametrize(
    ("bad", "code", "said"),
    [
        (b"{", "bad_request", "line 2: The body is not valid JSON"),
        (b'{"id": 7, "text": ""}', "empty_text", "line 2: text is empty"),
        (b'{"id": 7, "txt": "a"}', "invalid_input", "the field is `text`"),
        (b'{"id": 7, "text": ["a"]}', "invalid_input", "A line holds one text"),
        (b'{"id": 7.5, "text": "a"}', "invalid_input", "`id` must be a string or a whole number"),
        (b'{"id": true, "text": "a"}', "invalid_input", "`id` must be a string or a whole number"),
        (b'"a"', "invalid_input", "must be a JSON object"),
        (b'{"id": 7, "text": "\xff"}', "bad_request", "not valid UTF-8"),
        (b'{"id": 7, "text": "\\ud800"}', "invalid_input", "not valid Unicode"),
        (b'{"id": 7, "text": "%s"}' % (b"a" * 200), "text_too_long", "200 characters"),
        (b'{"id": 7, "text": "%s"}' % (b"a" * 3000), "too_large", "more than 2000 bytes"),
    ],
)
def test_a_bad_line_fails_alone_and_is_named(client, bad, code, said):
    rows = answered(client, line(1) + bad + b"\n" + line(3))
    assert [row.get("label") for row in rows] == ["short", None, "short"]
    assert rows[1]["error"]["code"] == code
    assert said in rows[1]["error"]["message"]
    if b'"id": 7,' in bad and code not in ("bad_request", "too_large"):
        assert rows[1]["id"] == 7


def test_an_empty_body_is_an_empty_answer(client):
    assert answered(client, b"") == answered(client, b"\n\n") == []


def test_what_can_not_begin_is_refused_as_everywhere(client, service, refused):
    packed = client.request("POST", PATH, content=b"x", headers={"content-encoding": "gzip"})
    refused(packed, 415, "unsupported_media_type")
    service.is_ready = False
    waiting = client.request("POST", PATH, content=line(1))
    refused(waiting, 503, "not_ready")
    assert waiting.headers["retry-after"] == "3"
    refused(client.request("GET", PATH), 405, "method_not_allowed")


def test_a_full_service_makes_the_sender_wait_and_loses_nothing():
    service = Held()
    service.refuses = 3
    rows = answered(Client(create_app(service, LIMITS)), line(1) + line(2))
    assert [row["label"] for row in rows] == ["short", "short"]
    assert service.refuses == 0


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(stream_route, "PATIENCE_S", 0.05)
    service = Held()
    service.failure = NotReady("not there", 0.02)
    (row,) = answered(Client(create_app(service, LIMITS)), line(1))
    assert row["error"]["code"] == "not_ready"


@pytest.mark.anyio
async def test_answers_come_while_the_sender_goes_on():
    async with talking(LengthClassifier()) as talk:
        await talk.begin()
        await talk.say(line(1))
        assert b"200 OK" in await talk.head()
        assert json.loads(await talk.hear())["id"] == 1
        # A line in two pieces, across a character.
        whole = '{"id": 2, "text": "很好"}\n'.encode()
        await talk.say(whole[:20])
        await talk.say(whole[20:])
        assert json.loads(await talk.hear())["id"] == 2
        await talk.end()
        assert await talk.rest() == []


@pytest.mark.anyio
async def test_a_sender_who_is_faster_than_the_model_waits(monkeypatch):
    monkeypatch.setattr(stream_route, "WINDOW_TEXTS", 20)
    monkeypatch.setattr(stream_route, "GROUP_TEXTS", 5)
    service = Held()
    service.open.clear()
    n = 10_000
    async with talking(service) as talk:
        await talk.begin()

        async def send_all() -> None:
            for start in range(0, n, 100):
                await talk.say(b"".join(line(i, "好" * 30) for i in range(start, start + 100)))
            await talk.end()

        sending = asyncio.create_task(send_all())
        await talk.head()
        await until(lambda: service.waiting == 20)
        await asyncio.sleep(0.2)
        assert not sending.done()
        service.open.set()
        rows = await talk.rest()
        await sending
    assert [row["id"] for row in rows] == list(range(n))
    assert service.most < 25


@pytest.mark.anyio
async def test_a_sender_who_hangs_up_leaves_nothing_behind():
    service = Held()
    service.open.clear()
    async with talking(service) as talk:
        await talk.begin()
        await talk.say(line(1))
        await until(lambda: service.waiting == 1)
        before = len(asyncio.all_tasks())
        talk.hang_up()
        # The request's own, its reader and its group.
        await until(lambda: len(asyncio.all_tasks()) <= before - 3)


@pytest.mark.anyio
async def test_a_sender_who_falls_silent_is_told_and_let_go():
    limits = LIMITS.model_copy(update={"body_timeout_s": 0.2})
    async with talking(LengthClassifier(), limits) as talk:
        await talk.begin()
        await talk.say(line(1))
        await talk.head()
        first, last = await talk.rest()
    assert first["id"] == 1
    assert last["error"]["code"] == "deadline_exceeded"
    assert "No line came for 0.2 s" in last["error"]["message"]


def test_keys_and_rates_hold_for_each_text(tmp_path: Path):
    token = new_token()
    keys = [{"id": "shop", "sha256": hash_of(token), "texts_per_day": 3}]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"))
    service = LengthClassifier()
    client = Client(create_app(service, LIMITS, access))
    assert client.request("POST", PATH, content=line(1)).status_code == 401
    key = {"authorization": f"Bearer {token}"}
    rows = answered(client, line(1) + line(2), **key)
    assert [row["label"] for row in rows] == ["short", "short"]
    rows = answered(client, line(1), **key)
    assert rows[0]["label"] == "short"
    assert client.request("POST", PATH, content=line(1), headers=key).status_code == 429
    assert len([one for one in service.seen if isinstance(one, TextInput)]) == 3
