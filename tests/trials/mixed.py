"""What callers send on an ordinary day, in waves, and what is a right answer to it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

RIGHT = "right"
HUNG_UP = "hung up"
ALLOWED = {RIGHT, "429", "408", HUNG_UP}  # any other outcome breaks a promise
PATIENCE_S = (0.001, 0.05)  # of clients that hang up
BATCH = (2, 16)
# Share of the requests by kind.
MIX = {
    "one text": 0.70,
    "one text, bulk": 0.10,
    "a batch": 0.06,
    "one text, its own time": 0.06,
    "bad input": 0.05,
    "hung up on": 0.03,
}
_BAD = (
    (b'{"text": 5}', 422),
    (b'{"txet": "x"}', 422),
    (b'{"text": "x", "top_k": -1}', 422),
    (b'{"text": ', 400),
    (b"\xff\xfe", 400),
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. labels: what is right, in order; status: of the right answer.

    head: header lines beyond the usual; hang_up_s: when the client goes, if it does.
    """

    kind: str
    body: bytes
    labels: tuple[str, ...] = ()
    status: int = 200
    head: str = ""
    hang_up_s: float | None = None


def asks(known: dict[str, str], seed: int = 1) -> Iterator[Ask]:
    """Requests without end, in the shares of MIX. known: text → its label."""
    rng, texts = random.Random(seed), list(known)
    kinds, shares = list(MIX), list(MIX.values())
    while True:
        (kind,) = rng.choices(kinds, shares)
        if kind == "bad input":
            body, status = rng.choice(_BAD)
            yield Ask(kind, body, status=status)
            continue
        if kind == "a batch":
            chosen = rng.sample(texts, rng.randint(*BATCH))
            labels = tuple(known[text] for text in chosen)
            yield Ask(kind, _json({"text": chosen}), labels)
            continue
        text = rng.choice(texts)
        body, labels = _json({"text": text}), (known[text],)
        if kind == "one text, bulk":
            yield Ask(kind, body, labels, head="X-Priority: bulk\r\n")
        elif kind == "one text, its own time":
            timeout_ms = rng.choice((30, 500, 5_000))
            yield Ask(kind, _json({"text": text, "timeout_ms": timeout_ms}), labels)
        elif kind == "hung up on":
            yield Ask(kind, body, labels, hang_up_s=rng.uniform(*PATIENCE_S))
        else:
            yield Ask(kind, body, labels)


def _json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Waves:
    """Load between `low` and `high` of the capacity and back in `period_s`; it begins low."""

    capacity_per_s: float
    period_s: float
    low: float = 0.3
    high: float = 1.1

    def share(self, at_s: float) -> float:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return middle - half * math.cos(2 * math.pi * at_s / self.period_s)

    def rate_per_s(self, at_s: float) -> float:
        return self.capacity_per_s * self.share(at_s)


@dataclass(slots=True)
class Answer:
    """One answer; head: the names of its headers in lower case."""

    status: int = 0
    head: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    keeps: bool = False


def judged(ask: Ask, answer: Answer, request_id: str) -> str:
    """What became of a request: `right`, `wrong`, `408`, `429`, or what should not be."""
    if answer.status == 429:
        return "429" if b"retry-after" in answer.head else "429 without Retry-After"
    if answer.status == 408:
        return "408"
    try:
        body = json.loads(answer.body)
        if answer.status != ask.status:
            return f"{answer.status} {body['error']['code']}"
        if answer.head.get(b"x-request-id") != request_id.encode():
            return "the answer of another request"
        if answer.status != 200:
            return RIGHT if body["error"]["code"] else "no code"
        items: Sequence[dict[str, object]] = body if isinstance(body, list) else [body]
        return RIGHT if tuple(item["label"] for item in items) == ask.labels else "wrong"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status} not of ours"
