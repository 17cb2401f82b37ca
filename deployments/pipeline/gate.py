"""The gate: whether a request is taken in, by how long it would wait. The one place for "too busy".

A limit on the number that may wait is too low for short texts on a fast model or too high for long
ones on a slow one, where all that is taken in then misses its time. So each answer of a Classifier
says how fast it is and how much waits there, and what would wait too long is refused before it is
tokenized. Who asks a service that does nothing is never refused.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from deployments.pipeline.errors import NotReady, Overloaded
from deployments.pipeline.types import WEIGHTS, Flow, Load, Priority, TextInput

# A Classifier not heard of for so long, while others were, is gone: few enough seconds that a
# replica less is noticed before the queue of the others is full.
MEMORY_S = 5.0
# What a Classifier says of its queue is old after that.
FRESH_S = 1.0
# A text may wait for half of its time; the rest is for its own pass, and for the error in this.
WAIT_SHARE = 0.5
# What a text costs beside its characters: its own place in a batch.
TEXT_WORK = 8
MAX_RETRY_AFTER_S = 60.0
# As long as nothing at all is answered the model may be away, not slow: a dead replica is noticed
# within a health check's period (config/capacity.py), its successor starts as long as it did
# itself, and what waits is then answered at the old speed. Longer, and it is slow.
NOTICED_S = 5.0
# Texts are spread over several Classifiers where each is busy with its call for so long. A call
# costs some ms of CPU time beside its texts: at 0.05 s, p50 of lists was up to 28 % longer.
CALL_S = 0.1
# Tokens in a unit of work, before any text was encoded: few, as in English. Too few takes in more.
_FIRST_RATIO = 0.2
_RATIO_MEMORY = 0.98  # with each micro-batch


def work_of(item: TextInput, max_chars: int) -> float:
    """What a text costs, about, in characters: its tokens are not known yet."""
    if item.token_ids is not None:
        return TEXT_WORK + min(len(item.token_ids), max_chars)
    chars = len(item.text) + len(item.text_pair or "")
    if chars > max_chars and not item.options.truncation:
        return TEXT_WORK  # too long to be cut, it never reaches the model
    return TEXT_WORK + min(chars, max_chars)


class Capacity:
    """What the Classifiers can do together, by what they say of themselves with each answer.

    start_s: how long the last one that was heard of took to start; None: none was yet.
    """

    def __init__(self) -> None:
        self._loads: dict[str, tuple[Load, float]] = {}
        self.start_s: float | None = None
        self._heard_at = -math.inf
        self._woke_at = 0.0
        self._tokens, self._work = _FIRST_RATIO, 1.0

    def heard(self, load: Load, now: float) -> None:
        """A Classifier said this with an answer."""
        self._heard_at, self.start_s = now, load.start_s
        self._loads[load.replica] = load, now
        if len(self._loads) > 1:
            since = now - MEMORY_S
            self._loads = {name: one for name, one in self._loads.items() if one[1] >= since}

    def wake(self, now: float) -> None:
        """Work has come where none was."""
        self._woke_at = now

    def answered(self, work: float, tokens: int) -> None:
        """Texts that were estimated at `work` had so many tokens."""
        if work:
            self._tokens = self._tokens * _RATIO_MEMORY + tokens
            self._work = self._work * _RATIO_MEMORY + work

    def per_s(self, now: float) -> float | None:
        """Work per second; None where no Classifier knows yet. It falls while none answers."""
        tokens_per_s = sum(load.tokens_per_s for load, _ in self._loads.values())
        if not tokens_per_s:
            return None
        away_s = NOTICED_S + (self.start_s or 0.0)
        stalled_s = max(0.0, now - max(self._heard_at, self._woke_at) - away_s)
        remembered_s = MEMORY_S * math.exp(-stalled_s / MEMORY_S)
        rate = tokens_per_s * remembered_s / (remembered_s + stalled_s)
        return rate * self._work / self._tokens

    def one_per_s(self, now: float) -> float | None:
        """As `per_s`, of one Classifier."""
        rate = self.per_s(now)
        return None if rate is None else rate / len(self._loads)

    def call_work(self, work: float, now: float) -> float:
        """How much of the work that is sent at once a call should carry: an even share for as many
        of the Classifiers that are known as it keeps busy for `CALL_S`."""
        rate = self.one_per_s(now)
        calls = 1 if rate is None else min(len(self._loads), int(work / rate / CALL_S))
        return work / max(calls, 1)

    def loads(self, now: float) -> list[tuple[Load, float]]:
        """What each Classifier said last, and how many seconds ago."""
        return [(load, now - at) for load, at in self._loads.values()]

    def queued(self, now: float) -> float:
        """Work of all ingress replicas that waits at the Classifiers, if they said so lately."""
        tokens = sum(load.queued_tokens for load, at in self._loads.values() if now - at <= FRESH_S)
        return tokens * self._work / self._tokens


class _Waiting:
    """What waits of one priority. Clients with nothing waiting are not kept."""

    def __init__(self) -> None:
        self.work = 0.0
        self.clients: dict[str, list[float]] = {}  # texts, work

    def of(self, client: str) -> tuple[float, float]:
        texts, work = self.clients.get(client, (0.0, 0.0))
        return texts, work

    def add(self, client: str, n_texts: int, work: float) -> None:
        entry = self.clients.setdefault(client, [0.0, 0.0])
        entry[0] += n_texts
        entry[1] += work
        self.work += work
        if entry[0] <= 0:
            del self.clients[client]
            if not self.clients:
                self.work = 0.0  # no rounding is left


class Gate:
    """Counts what was taken in and not answered yet, and refuses what would wait too long.

    pending: texts. refused: requests, since it was made.
    max_queue_s: how long an interactive text may be expected to wait.
    max_pending: texts that may wait in all; beyond it, each client has its share of them.
    """

    def __init__(self, max_pending: int, max_queue_s: float, clock: Callable[[], float]) -> None:
        self.pending = 0
        self.refused = 0
        self.capacity = Capacity()
        self._max_pending = max_pending
        self._max_queue_s = max_queue_s
        self._clock = clock
        self._waiting: dict[Priority, _Waiting] = {name: _Waiting() for name in WEIGHTS}

    def enter(self, flow: Flow, n_texts: int, work: float, timeout_s: float) -> None:
        """Takes a request in; `leave` must follow.

        Raises:
            Overloaded: it would wait too long, or too many texts wait. Never where nothing waits.
        """
        if self.pending:
            try:
                self._refuse_if_full(flow, n_texts)
                self._refuse_if_slow(flow, work, timeout_s)
            except Overloaded:
                self.refused += 1
                raise
        else:
            self.capacity.wake(self._clock())
        self._waiting[flow.priority].add(flow.client, n_texts, work)
        self.pending += n_texts

    def leave(self, flow: Flow, n_texts: int, work: float) -> None:
        """The request is answered, or nobody waits for it any more."""
        self._waiting[flow.priority].add(flow.client, -n_texts, -work)
        self.pending -= n_texts

    def heard(self, load: Load) -> None:
        """To be called with what each answer of a Classifier says."""
        self.capacity.heard(load, self._clock())

    def state(self) -> dict[str, Any]:
        """The parts `ingress` and `classifiers` of `GET /state`, JSON-ready."""
        return {
            "ingress": {
                "pending_texts": self.pending,
                "max_pending_texts": self._max_pending,
                "ahead_s": round(self.ahead_s(), 4),
                "refused_requests": self.refused,
            },
            "classifiers": [
                {
                    "replica": load.replica,
                    "heard_s": round(ago_s, 3),
                    "queued_tokens": load.queued_tokens,
                    "tokens_per_s": round(load.tokens_per_s),
                    "passes": load.passes,
                    "read_texts": load.read_texts,
                    "read_tokens": load.read_tokens,
                }
                for load, ago_s in self.capacity.loads(self._clock())
            ],
        }

    def call_work(self, work: float) -> float:
        """See `Capacity.call_work`."""
        return self.capacity.call_work(work, self._clock())

    def ahead_s(self) -> float:
        """How long all that was taken in here would take one Classifier; 0 where nobody knows."""
        rate = self.capacity.one_per_s(self._clock())
        work = sum(waiting.work for waiting in self._waiting.values())
        return work / rate if rate else 0.0

    def _refuse_if_full(self, flow: Flow, n_texts: int) -> None:
        if self.pending + n_texts <= self._max_pending:
            return
        waiting = self._waiting[flow.priority]
        own, _ = waiting.of(flow.client)
        others = len(waiting.clients) - (flow.client in waiting.clients)
        share = self._max_pending // (others + 1)
        # One client's flood fills the queue, not the others' share of it.
        if others and own + n_texts <= share and self.pending + n_texts <= 2 * self._max_pending:
            return
        raise Overloaded(
            f"{self.pending} texts wait in this replica; the limit is {self._max_pending}. "
            "Send fewer at once, or add Tokenizer and Classifier replicas."
        )

    def _refuse_if_slow(self, flow: Flow, work: float, timeout_s: float) -> None:
        rate = self.capacity.per_s(self._clock())
        if rate is None:
            return
        limit_s = WAIT_SHARE * timeout_s
        if flow.priority == "interactive":
            limit_s = min(limit_s, self._max_queue_s)
        expected_s = self._ahead(flow, work) / rate
        if expected_s > limit_s:
            raise Overloaded(
                f"A text would wait about {expected_s:.1f} s for the model; the limit is "
                f"{limit_s:.3g} s. Retry later, send fewer at once, or add Classifier replicas.",
                min(expected_s - limit_s, MAX_RETRY_AFTER_S),
            )

    def _ahead(self, flow: Flow, work: float) -> float:
        """Work that is done before this request's, at its priority's share of the model.

        Of each other client no more than this one has waiting itself, as they take turns. What
        came by other ingress replicas counts as one more client's.
        """
        waiting = self._waiting[flow.priority]
        _, own = waiting.of(flow.client)
        clients = len(waiting.clients) + (flow.client not in waiting.clients)
        ahead = min(waiting.work, (own + work) * clients - work)
        all_here = sum(one.work for one in self._waiting.values())
        ahead += min(max(0.0, self.capacity.queued(self._clock()) - all_here), own + work)
        busy = [name for name in WEIGHTS if name == flow.priority or self._waiting[name].work]
        ahead_of_others = sum(self._waiting[name].work for name in busy) - waiting.work
        share = WEIGHTS[flow.priority] / sum(WEIGHTS[name] for name in busy)
        # The others' share ends when nothing of theirs is left.
        return min(ahead / share, ahead + ahead_of_others)


class Readiness:
    """A new replica under load: its first text waits for the model as others do.

    Refused at once, callers would be sent here all the more, as a proxy asks who has least to do.

    max_texts, longest_s: how much may wait here, and how long.
    """

    def __init__(self, max_texts: int, longest_s: float) -> None:
        self._ready = asyncio.Event()
        self._max_texts, self._longest_s = max_texts, longest_s
        self._texts = 0

    def __bool__(self) -> bool:
        return self._ready.is_set()

    def begin(self) -> None:
        """It answers."""
        self._ready.set()

    def check(self) -> None:
        """Raises NotReady."""
        if not self:
            raise NotReady("The model is still loading. Retry in a few seconds.", 2.0)

    async def wait(self, n_texts: int, deadline: float) -> None:
        """Until it answers.

        Raises:
            NotReady: it took too long, or too many wait.
        """
        if self._texts + n_texts > self._max_texts:
            self.check()
        latest = asyncio.get_running_loop().time() + self._longest_s
        self._texts += n_texts
        try:
            async with asyncio.timeout_at(min(deadline, latest)):
                await self._ready.wait()
        except TimeoutError:
            self.check()
        finally:
            self._texts -= n_texts
