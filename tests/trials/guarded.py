"""A service with keys that trials may change while it runs, and ways of asking it."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from deployments.access.keys import hash_of, new_token
from scripts.bench.service import running_service

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

    def ask(
        self,
        token: str | bytes | None,
        text: str | list[str] = "很好",
        session: Any = requests,
        **headers: str | bytes,
    ) -> requests.Response:
        shown: dict[str, Any] = dict(headers)
        if token is not None:
            bearer = token if isinstance(token, bytes) else token.encode()
            shown["Authorization"] = b"Bearer " + bearer
        answer: requests.Response = session.post(
            f"{self.url}/classify", json={"text": text}, headers=shown, timeout=PATIENCE_S
        )
        return answer


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


def kind_of(answer: requests.Response) -> str:
    """Status and whether an error has our shape."""
    if answer.ok:
        return str(answer.status_code)
    try:
        error = answer.json()["error"]
        if error.keys() == {"code", "message", "request_id"}:
            return f"{answer.status_code} {error['code']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return f"{answer.status_code} in another shape"


def flood(
    service: Guarded, token: str, seconds: float, texts: list[str], connections: int = 8
) -> tuple[Counter[str], float, int]:
    """Kinds of answers, seconds it took, and 429s without a Retry-After."""
    kinds: Counter[str] = Counter()
    silent = 0
    started = time.monotonic()

    def ask() -> None:
        nonlocal silent
        with requests.Session() as session:
            while time.monotonic() - started < seconds:
                answer = service.ask(token, texts, session=session)
                kinds[kind_of(answer)] += 1
                silent += answer.status_code == 429 and "retry-after" not in answer.headers

    with ThreadPoolExecutor(connections) as pool:
        for future in [pool.submit(ask) for _ in range(connections)]:
            future.result()
    return kinds, time.monotonic() - started, silent


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a change of the keys was not seen within {PATIENCE_S:g} s")
        time.sleep(0.05)
