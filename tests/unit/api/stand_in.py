"""A real service, if a small one, and a client for the application in front of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from deployments.pipeline.errors import NotReady, ServiceError
from deployments.pipeline.explaining import Explain
from deployments.pipeline.gate import Gate
from deployments.pipeline.token_views import Token
from deployments.pipeline.types import Answer, TextInput
from deployments.settings import LimitSettings

LIMITS = LimitSettings(max_body_bytes=2_000, max_batch_texts=4, max_text_chars=100)


class LengthClassifier:
    """Texts over 10 characters are "long". Tests may make it fail, as a whole or for one text."""

    def __init__(self) -> None:
        self.seen: list[TextInput | ServiceError] = []
        self.failure: Exception | None = None
        self.bad_texts: dict[str, ServiceError] = {}
        self.is_ready = True

    async def classify_inputs(
        self, inputs: list[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        self.seen.extend(inputs)
        if self.failure is not None:
            raise self.failure
        return [self._classify(item) for item in inputs]

    def _classify(self, item: TextInput | ServiceError) -> Answer | ServiceError:
        if isinstance(item, ServiceError):
            return item
        if item.text in self.bad_texts:
            return self.bad_texts[item.text]
        length = len(item.text) + len(item.text_pair or "")
        long = 1.0 if length > 10 else 0.0
        scores = {"long": long, "short": 1 - long}
        label = max(scores, key=scores.__getitem__)
        ids = {"label_ids": [0, 1]} if item.options.label_ids else {}
        return {
            "label": label,
            "score": scores[label],
            "scores": scores,
            **ids,
            "tokens": length,
            "truncated": False,
        }

    async def explain_inputs(
        self,
        inputs: list[TextInput | ServiceError],
        how: Explain,
        timeout_s: float | None = None,
    ) -> list[Answer | ServiceError]:
        """The first character is all of it."""
        answers = await self.classify_inputs(inputs, timeout_s)
        for item, answer in zip(inputs, answers, strict=True):
            if isinstance(item, TextInput) and isinstance(answer, dict):
                token = {"text": item.text[0], "start": 0, "end": 1, "attribution": 1.0}
                answer["explanation"] = {
                    "label": how.target or answer["label"],
                    "of": "log_odds",
                    "method": how.method,
                    "baseline": None,
                    "passes": how.passes or 32,
                    "seconds": 0.1,
                    "sum": 1.0,
                    "convergence_delta": None,
                    "elsewhere": 0.0,
                    "truncated": False,
                    "tokens": [token],
                }
        return answers

    async def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[Token]]:
        """A token a character, whose id is its code point."""
        if self.failure is not None:
            raise self.failure
        marks = [Token(0, "[M]", True, None, None)] if add_special_tokens else []
        return [
            [*marks, *(Token(ord(c), c, False, i, i + 1) for i, c in enumerate(text))]
            for text in texts
        ]

    async def decode(self, rows: Sequence[list[int]], skip_special_tokens: bool) -> list[str]:
        known = range(1 if skip_special_tokens else 0, 0xD800)
        return ["".join(chr(one) for one in row if one in known) for row in rows]

    async def readiness(self) -> None:
        if not self.is_ready:
            raise NotReady("The model is loading. Try again soon.", 2.4)

    async def info(self, certificate: bool = False) -> dict[str, Any]:
        return {"model": "length", "labels": ["long", "short"]}

    async def state(self) -> dict[str, Any]:
        state = Gate(8, 1.0, time.monotonic).state()
        return {
            "application": None,
            "deployments": [],
            "ingress": {"replica": "", **state["ingress"]},
            "classifiers": state["classifiers"],
        }


class Client:
    """Blocking requests to an ASGI app; exceptions that leave the app fail the test."""

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self.app = app
        self._root_path = root_path

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, root_path=self._root_path)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, self._root_path + path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def classify(self, value: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        headers = {"content-type": "application/json"} | (headers or {})
        body = json.dumps(value).encode()
        return self.request("POST", "/classify", content=body, headers=headers)

    def send(self, body: bytes, content_type: str | None = "application/json") -> httpx.Response:
        headers = {} if content_type is None else {"content-type": content_type}
        return self.request("POST", "/classify", content=body, headers=headers)


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Its address, for clients that want a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
