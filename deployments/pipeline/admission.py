"""Whether a request is taken in: by how long it would wait, not by how many wait.

A limit on the number that may wait is too low for short texts on a fast model or too high for long
ones on a slow one, where all that is taken in then misses its time. So the ingress learns how much
work is answered in a second and refuses what would wait too long, before it is tokenized.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from deployments.pipeline.errors import Overloaded
from deployments.pipeline.flow import WEIGHTS, Flow, Priority
from deployments.pipeline.types import TextInput

# Over how many busy seconds the speed is averaged: several batches of a slow model, and few enough
# that a replica more or less is noticed before its queue is full.
MEMORY_S = 5.0
# A text may wait for half of its time; the rest is for its own pass, and for the error in this.
WAIT_SHARE = 0.5
# What a text costs beside its characters: its own place in a batch.
TEXT_WORK = 8
MAX_RETRY_AFTER_S = 60.0
# Small batches tell little about large ones: a queue that has only just begun may be so much faster
# than it was.
YOUNG_S = 1.0
YOUNG_FACTOR = 4.0
# As long as nothing at all is answered the model may be away, not slow: replicas that died are back
# in some seconds, and what waits is then answered at the old speed. Longer, and it is slow.
AWAY_S = 10.0


def work_of(item: TextInput, max_chars: int) -> float:
    """What a text costs, about: its tokens are not known yet."""
    chars = len(item.text) + len(item.text_pair or "")
    if chars > max_chars and not item.options.truncation:
        return TEXT_WORK  # too long to be cut, it never reaches the model
    return TEXT_WORK + min(chars, max_chars)


class DrainRate:
    """Work answered per second of being busy with it, recent seconds first."""

    def __init__(self) -> None:
        self._done = 0.0
        self._busy_s = 0.0
        self._counted_until = -math.inf
        self._seen_at: float | None = None  # None while idle
        self._woke_at = 0.0

    def wake(self, now: float) -> None:
        """Work has come where none was."""
        self._seen_at = self._woke_at = now

    def rest(self, now: float) -> None:
        """No work is left."""
        self._seen_at = None

    def record(self, work: float, sent: float, now: float) -> None:
        """So much has been answered of what was sent then; 0: the texts were refused.

        Who sends nothing but texts that are refused must make nobody else look slow, nor fast.
        """
        self._seen_at = now
        if not work:
            return
        busy_s = max(0.0, now - max(sent, self._counted_until))
        fading = math.exp(-busy_s / MEMORY_S)
        self._done = self._done * fading + work
        self._busy_s = self._busy_s * fading + busy_s
        self._counted_until = now

    def per_s(self, now: float) -> float | None:
        """None until something has been answered. Falls while nothing is."""
        if not self._done:
            return None
        is_young = now - self._woke_at < YOUNG_S
        seen_at = now if self._seen_at is None else self._seen_at
        stalled_s = max(0.0, now - seen_at - (0.0 if is_young else AWAY_S))
        fading = math.exp(-stalled_s / MEMORY_S)
        rate = self._done * fading / max(self._busy_s * fading + stalled_s, 1e-6)
        return rate * YOUNG_FACTOR if is_young else rate


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


class Admission:
    """Counts what was taken in and not answered yet, and refuses what would wait too long.

    pending: texts. max_queue_s: how long an interactive text may be expected to wait.
    max_pending: texts that may wait in all; beyond it, each client has its share of them.
    """

    def __init__(self, max_pending: int, max_queue_s: float, clock: Callable[[], float]) -> None:
        self.pending = 0
        self.rate = DrainRate()
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
            self._refuse_if_full(flow, n_texts)
            self._refuse_if_slow(flow, work, timeout_s)
        else:
            self.rate.wake(self._clock())
        self._waiting[flow.priority].add(flow.client, n_texts, work)
        self.pending += n_texts

    def leave(self, flow: Flow, n_texts: int, work: float) -> None:
        """The request is answered, or nobody waits for it any more."""
        self._waiting[flow.priority].add(flow.client, -n_texts, -work)
        self.pending -= n_texts
        if not self.pending:
            self.rate.rest(self._clock())

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
        rate = self.rate.per_s(self._clock())
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

        Of each other client no more than this one has waiting itself: they take turns.
        """
        waiting = self._waiting[flow.priority]
        _, own = waiting.of(flow.client)
        clients = len(waiting.clients) + (flow.client not in waiting.clients)
        ahead = min(waiting.work, (own + work) * clients - work)
        busy = [name for name in WEIGHTS if name == flow.priority or self._waiting[name].work]
        ahead_of_others = sum(self._waiting[name].work for name in busy) - waiting.work
        share = WEIGHTS[flow.priority] / sum(WEIGHTS[name] for name in busy)
        # The others' share ends when nothing of theirs is left.
        return min(ahead / share, ahead + ahead_of_others)
