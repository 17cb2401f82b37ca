"""What callers send on an ordinary day, in waves, with every answer checked."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deployments.bench.client import HUNG_UP, RIGHT, Answer, Asked, Load, Question, post

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

    def judged(self, answer: Answer, request_id: str) -> str:
        """What became of it: `right`, `wrong`, `408`, `429`, or what should not be."""
        if answer.status == 429:
            return "429" if "retry-after" in answer.headers else "429 without Retry-After"
        if answer.status == 408:
            return "408"
        if answer.status != self.status:
            return answer.said
        if answer.headers.get("x-request-id") != request_id:
            return "the answer of another request"
        body = answer.json()
        if answer.status != 200:
            return RIGHT if body["error"]["code"] else "no code"
        items = body if isinstance(body, list) else [body]
        return RIGHT if tuple(item["label"] for item in items) == self.labels else "wrong"


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
    low: float = 0.1  # at 0.3 two Classifiers are half busy each: lone texts fill batches badly
    high: float = 1.1

    def share(self, at_s: float) -> float:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return middle - half * math.cos(2 * math.pi * at_s / self.period_s)

    def rate_per_s(self, at_s: float) -> float:
        return self.capacity_per_s * self.share(at_s)

    def times_s(self, seed: int = 2) -> Iterator[float]:
        """When requests are due: a Poisson process, without end."""
        rng, due_s = random.Random(seed), 0.0
        while True:
            due_s += rng.expovariate(self.rate_per_s(due_s))
            yield due_s


class MixedLoad(Load):
    """Mixed traffic in waves. by_kind: of (kind, what became of it)."""

    def __init__(self, url: str, known: dict[str, str], waves: Waves) -> None:
        self.by_kind: Counter[tuple[str, str]] = Counter()
        self.examples: list[str] = []
        self._took_s: deque[float] = deque(maxlen=200_000)
        questions = (self._question(ask, number) for number, ask in enumerate(asks(known)))
        super().__init__(url, questions, waves.times_s(), note=self._count)

    def latencies_ms(self) -> dict[str, float]:
        """Of what was answered right since the last call, from the intended time on."""
        took = [self._took_s.popleft() for _ in range(len(self._took_s))]
        if not took:
            return {}
        p50, p99 = np.percentile(took, (50, 99)) * 1e3
        return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}

    def _question(self, ask: Ask, number: int) -> Question:
        request_id = f"soak-{number}"

        def judge(answer: Answer) -> str:
            outcome = ask.judged(answer, request_id)
            if outcome not in (RIGHT, "429", "408") and len(self.examples) < 20:
                self.examples.append(f"{ask.kind}: {outcome}: {answer.body[:200]!r}")
            return outcome

        request = post(ask.body, extra=ask.head.encode(), request_id=request_id)
        return Question(request, judge, ask.kind, ask.hang_up_s)

    def _count(self, one: Asked) -> None:
        self.by_kind[one.kind, one.outcome] += 1
        if one.outcome == RIGHT and one.answered_s is not None:
            self._took_s.append(one.answered_s - one.due_s)
