"""What a server sees: lifespan, prefixes, cancellation, hang-ups."""

from __future__ import annotations

import asyncio

import pytest
from stand_in import LengthClassifier

from deployments.http.app import create_app
from deployments.pipeline.types import TextInput


def http_scope(path: str = "/classify", root_path: str = "") -> dict:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "server": ("test", 80),
        "client": ("test", 1),
    }


async def receive_text() -> dict:
    return {"type": "http.request", "body": b'{"text": "a"}', "more_body": False}


def test_the_shortcut_works_under_a_prefix(prefixed):
    assert prefixed.classify({"text": "a"}).json()["label"] == "short"
    assert prefixed.get("/health").status_code == 200
    assert prefixed.request("GET", "/classify").status_code == 405


def test_starlette_answers_what_the_shortcut_leaves(service, limits):
    """The same route stands behind it, for servers that leave the prefix out of the path."""
    app = create_app(service, limits)
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(app(http_scope("/classify", "/nlp"), receive_text, send))
    assert sent[0]["status"] == 200


def test_lifespan_is_answered(client):
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive() -> dict:
        return messages.pop(0)

    async def send(message: dict) -> None:
        sent.append(message["type"])

    asyncio.run(client.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_client_that_hangs_up_while_sending_gets_no_answer(client, service):
    async def receive() -> dict:
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        pytest.fail("nobody is there")

    asyncio.run(client.app(http_scope(), receive, send))
    assert service.seen == []


class Gate(LengthClassifier):
    """Answers when opened; remembers whose waits were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.cancelled: list[str] = []

    async def classify_inputs(self, inputs, timeout_s=None):
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += [item.text for item in inputs if isinstance(item, TextInput)]
            raise
        return await super().classify_inputs(inputs, timeout_s)


def test_cancelling_one_request_cancels_its_wait_only(limits):
    async def run() -> None:
        service = Gate()
        app = create_app(service, limits)
        sent: dict[str, list[dict]] = {"gone": [], "stays": []}

        def request(text: str) -> asyncio.Task:
            async def receive() -> dict:
                return {"type": "http.request", "body": b'{"text": "%s"}' % text.encode()}

            async def send(message: dict) -> None:
                sent[text].append(message)

            return asyncio.create_task(app(http_scope(), receive, send))

        gone, stays = request("gone"), request("stays")
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        service.opened.set()
        await stays
        assert service.cancelled == ["gone"]
        assert sent["gone"] == []
        assert sent["stays"][0]["status"] == 200

    asyncio.run(run())
