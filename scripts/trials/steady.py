"""Steady load of texts that occur once each, with known labels; every answer is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import httpx

from deployments.model.load import load_parts
from deployments.pipeline.types import TextInput
from deployments.settings import ModelSettings

CLIENT_TIMEOUT_S = 60.0  # above the service's own: it must answer before
RIGHT = "right"
# At each of these characters a FaultyEngine does what its name says.
RAISES, NOT_A_NUMBER, NO_MEMORY, HANGS, KILLS, SLOW = "错", "空", "爆", "停", "死", "慢"


class _Ids:
    """Token ids as the service sees them."""

    def __init__(self) -> None:
        self._encoder = load_parts(ModelSettings()).encoder()

    def all(self, text: str) -> list[int]:
        ids: list[int] = self._encoder.encode([TextInput(text)]).batch.input_ids.tolist()
        return ids

    def ids(self, text: str) -> list[int]:
        """Without the marks around a text."""
        return self.all(text)[1:-1]


@cache
def encoder() -> _Ids:
    return _Ids()


def text_of(number: int) -> str:
    return f"第 {number} 条评论：质量很好，下次再来。"


def label_of(text: str) -> str:
    """What FaultyEngine says of a text."""
    return ("negative", "positive")[sum(encoder().all(text)) % 2]


@dataclass
class Seen:
    """What became of the requests. outcome: `right`, `wrong`, `500 code`, or `lost …`.

    sent_s: when each was sent, by time.monotonic(), and its outcome.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    sent_s: list[tuple[float, str]] = field(default_factory=list)
    right_at_s: list[float] = field(default_factory=list)
    slowest_s: float = 0.0

    @property
    def asked(self) -> int:
        return sum(self.outcomes.values())

    @property
    def lost(self) -> int:
        return sum(n for what, n in self.outcomes.items() if what.startswith("lost"))

    @property
    def not_right(self) -> dict[str, int]:
        return {what: n for what, n in sorted(self.outcomes.items()) if what != RIGHT}

    @property
    def longest_gap_s(self) -> float:
        """Between two right answers."""
        times = sorted(self.right_at_s)
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def __str__(self) -> str:
        others = ", ".join(f"{n} {what}" for what, n in self.not_right.items())
        return (
            f"{self.outcomes[RIGHT]} of {self.asked} right{', ' + others if others else ''}; "
            f"longest gap {self.longest_gap_s:.1f} s, slowest answer {self.slowest_s:.1f} s"
        )


class SteadyLoad:
    """Asks `rate_per_s` times a second from entry to exit, in a thread of its own.

    On exit every request has been answered, or waited for as long as its client would.
    """

    def __init__(self, url: str, rate_per_s: float = 30.0) -> None:
        self.seen = Seen()
        self._url = url
        self._rate_per_s = rate_per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        async with httpx.AsyncClient(timeout=CLIENT_TIMEOUT_S, limits=limits) as client:
            tasks: list[asyncio.Task[None]] = []
            first_s = time.monotonic()
            while not self._stop.is_set():
                tasks.append(asyncio.create_task(self._ask(client, len(tasks))))
                next_s = first_s + len(tasks) / self._rate_per_s
                await asyncio.sleep(max(next_s - time.monotonic(), 0))
            await asyncio.gather(*tasks)

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        text = text_of(number)
        sent_s = time.monotonic()
        outcome = await asked(client, self._url, text)
        now_s = time.monotonic()
        self.seen.outcomes[outcome] += 1
        self.seen.sent_s.append((sent_s, outcome))
        self.seen.slowest_s = max(self.seen.slowest_s, now_s - sent_s)
        if outcome == RIGHT:
            self.seen.right_at_s.append(now_s)


async def asked(client: httpx.AsyncClient, url: str, text: str) -> str:
    """What became of one text."""
    try:
        answer = await client.post(f"{url}/classify", json={"text": text})
    except httpx.HTTPError as exc:
        return f"lost {type(exc).__name__}"
    body: Any = None
    with contextlib.suppress(json.JSONDecodeError):
        body = answer.json()
    if answer.status_code == 200:
        return RIGHT if body["label"] == label_of(text) else "wrong"
    # Not of ours: HAProxy's own page.
    code = body["error"]["code"] if isinstance(body, dict) and "error" in body else "no JSON"
    return f"{answer.status_code} {code}"
