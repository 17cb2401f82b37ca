"""A service with keys that trials may change while it runs, and ways of asking it."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deployments.access.keys import hash_of, new_token
from deployments.bench.client import Answer, Load, Question, post
from scripts.bench.service import running_service

from .raw_http import Connection

RATE, BURST = 50, 100
QUOTA = 1_000
PATIENCE_S = 30.0


@dataclass
class Secret:
    """A keys file, written as Kubernetes writes one: a new directory, then a swapped link."""

    folder: Path
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    _version: int = 0

    @property
    def path(self) -> Path:
        return self.folder / "keys.json"

    def add(self, key_id: str, **rights: Any) -> str:
        token = self.tokens[key_id] = new_token()
        self.keys[key_id] = {"id": key_id, "sha256": hash_of(token), **rights}
        return token

    def write(self) -> None:
        self._version += 1
        version = self.folder / f"..{self._version}"
        version.mkdir()
        (version / "keys.json").write_text(json.dumps({"keys": list(self.keys.values())}))
        link = self.folder / "..new"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        if not self.path.is_symlink():
            self.path.symlink_to("..data/keys.json")


@dataclass(frozen=True)
class Guarded:
    """A running service that knows the keys of `secret`."""

    url: str
    secret: Secret

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def request(
        self, token: str | bytes | None, text: str | list[str] = "很好", **more: str
    ) -> bytes:
        """A whole request under this token. more: other header lines."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in more.items()).encode()
        if token is not None:
            bearer = token if isinstance(token, bytes) else token.encode()
            headers += b"Authorization: Bearer " + bearer + b"\r\n"
        return post(json.dumps({"text": text}).encode(), extra=headers)

    def question(self, token: str | bytes, text: str | list[str] = "很好") -> Question:
        return Question(self.request(token, text), kind_of)

    def ask(self, token: str | bytes | None, **more: str) -> Answer:
        """One question on a connection of its own.

        Raises:
            OSError: no answer, and the connection was closed.
        """
        with Connection(self.port) as connection:
            connection.send(self.request(token, **more))
            if (answer := connection.receive()) is None:
                raise ConnectionError("closed without an answer")
            return answer

    def answers(self, token: str) -> bool:
        return self.ask(token).status == 200

    def refuses(self, token: str) -> bool:
        return self.ask(token).status == 401


@contextmanager
def guarded_service() -> Iterator[Guarded]:
    with tempfile.TemporaryDirectory() as folder:
        secret = Secret(Path(folder))
        secret.add("shop")
        secret.add("explainer", scopes=["explain"])
        secret.add("admin", scopes=["admin"])
        secret.add("slow", texts_per_s=RATE, burst_texts=BURST)
        secret.add("poor", texts_per_day=QUOTA)
        secret.write()
        changes = ["engine.name=none", f"access.keys_file={secret.path}"]
        with running_service(changes) as service:
            yield Guarded(service.endpoint.url, secret)


def kind_of(answer: Answer) -> str:
    """Status and code, and whether an error has our shape."""
    if answer.status == 200:
        return answer.said
    shape = {"code", "message", "request_id"}
    return answer.said if answer.json()["error"].keys() == shape else f"{answer.said} misshapen"


def flood(
    service: Guarded, token: str, seconds: float, texts: list[str], connections: int = 8
) -> tuple[Counter[str], float, int]:
    """Kinds of answers, seconds it took, and 429s without a Retry-After."""
    load = Load(service.url, repeat(service.question(token, texts)), connections=connections)
    with load:
        time.sleep(seconds)
    silent = sum(one.status == 429 and not one.retry_after for one in load.asked)
    return load.outcomes, load.now_s(), silent
