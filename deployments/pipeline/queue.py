"""Calls that wait for the model, and the slices of them that make up a batch.

Calls are cut only where a batch is full, so that what is done per text is left to numpy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from deployments.pipeline.errors import DeadlineExceeded, ServiceError
from deployments.pipeline.fair_queue import FairQueue
from deployments.pipeline.types import (
    DEFAULT_FLOW,
    WEIGHTS,
    Encoded,
    Float32,
    Float64,
    Flow,
    FlowRuns,
    Logits,
)

_NO_IDS = np.zeros(0, np.int32)


@dataclass(eq=False, slots=True)
class Call:
    """One caller's texts; `future` is done when each of them has an answer, or the caller left.

    deadlines: float64 [n], by the batcher's clock, as `arrived` is. alone: in no batch with others.
    model_s: how long the passes took in which they were.
    """

    texts: Encoded
    deadlines: Float64
    arrived: float
    future: asyncio.Future[Logits]
    alone: bool = False
    id: int = 0
    queued_tokens: int = 0
    unanswered: int = 0
    model_s: float = 0.0
    values: Float32 | None = None
    errors: dict[int, ServiceError] = field(default_factory=dict)
    _offsets: npt.NDArray[np.int64] | None = None

    def offsets(self) -> npt.NDArray[np.int64]:
        """Where in `texts.input_ids` each text begins, and where the last one ends: [n + 1]."""
        if self._offsets is None:
            self._offsets = np.concatenate(([0], np.cumsum(self.texts.lengths, dtype=np.int64)))
        return self._offsets

    def answer(self, start: int, rows: Float32) -> None:
        """`rows` are the logits of the texts from `start` on."""
        if self.future.done():
            return
        if self.values is None:
            if len(rows) == len(self.texts):
                self.values = rows
            else:
                self.values = np.zeros((len(self.texts), rows.shape[1]), np.float32)
        if self.values is not rows:
            self.values[start : start + len(rows)] = rows
        self._count(len(rows))

    def fail(self, start: int, stop: int, error: ServiceError) -> None:
        if self.future.done():
            return
        self.errors.update(dict.fromkeys(range(start, stop), error))
        self._count(stop - start)

    def _count(self, n_answered: int) -> None:
        self.unanswered -= n_answered
        if not self.unanswered:
            if self.values is None:
                self.values = np.zeros((len(self.texts), 1), np.float32)
            logits = Logits(self.values, self.errors or None, model_s=self.model_s)
            self.future.set_result(logits)


@dataclass(frozen=True, slots=True)
class Slice:
    """The texts of one call from `start` to before `stop`.

    earliest_deadline: none of them expires before it. flow: of all of them.
    """

    call: Call
    start: int
    stop: int
    tokens: int
    earliest_deadline: float
    flow: Flow = DEFAULT_FLOW

    def __len__(self) -> int:
        return self.stop - self.start

    def encoded(self) -> Encoded:
        texts = self.call.texts
        if len(self) == len(texts):
            return texts
        offsets = self.call.offsets()
        tokens = slice(offsets[self.start], offsets[self.stop])
        types = texts.token_type_ids
        return Encoded(
            texts.input_ids[tokens],
            texts.lengths[self.start : self.stop],
            None if types is None else types[tokens],
        )

    def fail(self, error: ServiceError) -> None:
        self.call.fail(self.start, self.stop, error)

    def part(self, start: int, stop: int) -> Slice:
        offsets = self.call.offsets()
        tokens = int(offsets[stop] - offsets[start])
        return Slice(self.call, start, stop, tokens, self.earliest_deadline, self.flow)

    def cut(self, n_texts: int) -> tuple[Slice, Slice]:
        """The first `n_texts`, and the others; neither may be empty."""
        middle = self.start + n_texts
        return self.part(self.start, middle), self.part(middle, self.stop)

    def fitting(self, max_tokens: int) -> int:
        """How many texts, from the first on, have `max_tokens` tokens at most together."""
        offsets = self.call.offsets()
        end = offsets[self.start] + max_tokens
        fitting = int(np.searchsorted(offsets, end, side="right")) - 1 - self.start
        return min(fitting, len(self))

    def living(self, now: float) -> list[Slice]:
        """Slices of the texts that somebody still waits for; answers those whose time ran out."""
        if self.call.future.done():
            return []
        if self.earliest_deadline > now:
            return [self]
        lives = self.call.deadlines[self.start : self.stop] > now
        borders = np.flatnonzero(np.diff(lives)) + 1
        runs: list[Slice] = []
        for first, last in zip([0, *borders], [*borders, len(self)], strict=True):
            start, stop = self.start + int(first), self.start + int(last)
            if lives[first]:
                run = self.part(start, stop)
                earliest = float(self.call.deadlines[start:stop].min())
                runs.append(Slice(self.call, start, stop, run.tokens, earliest, self.flow))
            else:
                self.call.fail(
                    start,
                    stop,
                    DeadlineExceeded(
                        "The request's time ran out in the queue. Retry later or allow more time."
                    ),
                )
        return runs


def living(batch: Sequence[Slice], now: float) -> list[Slice]:
    """What of a batch somebody still waits for; answers those whose time ran out."""
    return [run for piece in batch for run in piece.living(now)]


def cut(batch: Sequence[Slice], n_texts: int) -> tuple[list[Slice], list[Slice]]:
    """The first `n_texts` of a batch, and the others."""
    first: list[Slice] = []
    for i, piece in enumerate(batch):
        if len(piece) > n_texts:
            if not n_texts:
                return first, list(batch[i:])
            left, right = piece.cut(n_texts)
            return [*first, left], [right, *batch[i + 1 :]]
        first.append(piece)
        n_texts -= len(piece)
    return first, []


def lengths_and_waits(batch: list[Slice], now: float) -> tuple[Float64, Float64]:
    """Tokens of each text, and the seconds since it arrived: float64 [n] each."""
    lengths = [piece.call.texts.lengths[piece.start : piece.stop] for piece in batch]
    waits_s = [now - piece.call.arrived for piece in batch]
    return np.concatenate(lengths).astype(np.float64), np.repeat(waits_s, [*map(len, batch)])


class TokenQueue:
    """Slices of calls: those of one flow in the order of arrival, flows in turns.

    tokens: how many wait, those of callers who left apart.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._slices: FairQueue[Slice] = FairQueue(WEIGHTS)
        self._forgotten = 0

    def __bool__(self) -> bool:
        return bool(self._slices)

    def put(self, call: Call, flows: FlowRuns | None = None) -> None:
        """flows: of the texts, in order; None where all are the default one.

        Raises:
            ValueError: flows are of another number of texts.
        """
        tokens, n_texts = call.texts.total_tokens, len(call.texts)
        whole = Slice(call, 0, n_texts, tokens, float(call.deadlines.min()))
        slices = [whole] if flows is None else _by_flow(whole, flows)
        call.unanswered = n_texts
        for piece in slices:
            self._slices.push(piece.flow, piece)
        self._count(call, tokens)

    def put_back(self, slices: Sequence[Slice]) -> None:
        """To the front, in order."""
        for piece in reversed(slices):
            self._slices.put_back(piece.flow, piece, piece.tokens)
            self._count(piece.call, piece.tokens)

    def forget(self, call: Call) -> None:
        """The caller left: its future is done. What waits of it is skipped, not searched for, and
        has no token ids any more: they are the text again."""
        self._count(call, -call.queued_tokens)
        call.texts = Encoded(_NO_IDS, call.texts.lengths)
        self._forgotten += 1
        if 2 * self._forgotten > len(self._slices):  # a model that hangs must not fill the memory
            self._slices.keep(lambda piece: not piece.call.future.done())
            self._forgotten = 0

    def call_ids(self) -> set[int]:
        """Of all calls of which something waits."""
        return {piece.call.id for piece in self._slices}

    def oldest(self) -> float | None:
        """When what waits longest arrived, by the batcher's clock; None where nothing waits."""
        living = (piece.call for piece in self._slices if not piece.call.future.done())
        return min((call.arrived for call in living), default=None)

    def drain(self) -> list[Call]:
        """Empties it. The calls of which something waited."""
        calls: dict[Call, None] = {}
        while self._slices:
            calls[self._slices.head().call] = None
            self._slices.replace_head([])
        self.tokens = 0
        return list(calls)

    def take(self, max_tokens: int, now: float) -> list[Slice]:
        """The next living texts that fit; the first is taken even if it does not.

        None out of turn: a long text must not starve behind short ones that would fit.
        """
        batch: list[Slice] = []
        room = max_tokens
        while self._slices:
            piece = self._slices.head()
            if piece.call.future.done():
                self._slices.replace_head([])
                continue
            if piece.earliest_deadline <= now:
                runs = piece.living(now)
                self._count(piece.call, sum(run.tokens for run in runs) - piece.tokens)
                self._slices.replace_head(runs)
                continue
            if batch and (piece.call.alone or batch[0].call.alone):
                break
            if piece.tokens > room:
                n_texts = piece.fitting(room) or (0 if batch else 1)
                if not n_texts:
                    break
                if n_texts < len(piece):
                    self._slices.replace_head(piece.cut(n_texts))
                    piece = self._slices.head()
            self._slices.pop(piece.tokens)
            self._count(piece.call, -piece.tokens)
            batch.append(piece)
            room -= piece.tokens
            if room <= 0:
                break
        return batch

    def _count(self, call: Call, tokens: int) -> None:
        call.queued_tokens += tokens
        self.tokens += tokens


def _by_flow(whole: Slice, flows: FlowRuns) -> list[Slice]:
    if sum(n for _, n in flows) != len(whole):
        raise ValueError(f"{sum(n for _, n in flows)} flows for {len(whole)} texts")
    ends = list(accumulate(n for _, n in flows))
    starts = [0, *ends[:-1]]
    return [
        replace(whole.part(start, end), flow=flow)
        for (flow, _), start, end in zip(flows, starts, ends, strict=True)
    ]
