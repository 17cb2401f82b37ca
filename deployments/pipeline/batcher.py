"""The classifier's queue: merges micro-batches from all callers into batches by token budget.

A batch is formed only when the model is free, so nothing waits behind a half-empty batch and
nothing waits for a timer (compare `@serve.batch`, which forms batches before the model is free).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from deployments.pipeline.errors import Overloaded, PredictionFailed, ServiceError
from deployments.pipeline.latency_model import (
    SPEED_MEMORY,
    Coefficients,
    CostCurve,
    texts_within,
)
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.queue import Call, Slice, TokenQueue, cut, lengths_and_waits, living
from deployments.pipeline.retry import MIN_PATIENCE_S, STUCK_FACTOR, Hung
from deployments.pipeline.types import Encoded, Float32, FlowRuns, Logits

logger = logging.getLogger(__name__)

# Halving a batch of which nothing works ends after 1 + 2 + 4 + 8 + 16 passes: then each sixteenth
# has failed, and the model is at fault rather than a text.
MAX_FAILURES = 31
# Two passes may take so much longer than one, to answer more texts in time, on a machine that is
# always idle; less on a busy one.
MAX_SLACK = 0.1
_IDLE_MEMORY = 50  # passes
# Until a pass was half full: small ones tell as little as a third of the speed of full ones, and an
# idle service must not refuse by that.
HOPE = 3.0


class TokenBatcher:
    """Feeds a model one batch at a time, up to `max_batch_tokens`: flows in turns, of each the
    oldest texts first.

    A text longer than the budget runs alone. Cancelled and expired texts are never run. Where the
    model raises, the batch is halved until the text at fault stands alone; only that one fails.
    Where nothing of the batch works at all, the rest of it fails after `MAX_FAILURES` attempts.

    predict: never runs twice at a time; in a thread of its own, unless `run` runs it elsewhere.
    max_batch_tokens, max_queue_tokens: may be changed at any time.
    target_p99_ms: keeps batches small enough to answer texts within it; may be changed too.
    failed_batches: how many batches in a row, up to now, had no text on which the model worked.
    running: what the forward pass under way works on. curve: what passes cost, as far as known.
    """

    def __init__(
        self,
        predict: Callable[[Encoded], Logits],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        target_p99_ms: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        run: Callable[..., Awaitable[Any]] | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self._observer = observer
        self.on_pass: Callable[[Collection[int], float, int, int], None] | None = None
        self.max_batch_tokens = max_batch_tokens
        self.max_queue_tokens = max_queue_tokens
        self.target_p99_ms = target_p99_ms
        self.failed_batches = 0
        self.passes = self.read_texts = self.read_tokens = 0  # of callers, since it was made
        self.running: list[Slice] = []
        self.curve = CostCurve()
        self._abandoned = False
        self._predict = predict
        self._clock = clock
        self._run = run or ModelThread()
        self._queue = TokenQueue()
        self._loop_task: asyncio.Task[None] | None = None
        self._usual_longest = 0.0  # tokens, of the longest text of a pass, on average
        self._n_values: int | None = None
        self._pass_started: float | None = None
        self._ended = clock()
        self._idle_s = 0.0  # between two passes, on average
        self._busy_s = 0.0
        self._worked_s = 0.0

    @property
    def queued_tokens(self) -> int:
        return self._queue.tokens

    @property
    def oldest_s(self) -> float:
        """How long the oldest text of the queue has waited; 0 where none waits."""
        arrived = self._queue.oldest()
        return 0.0 if arrived is None else self._clock() - arrived

    @property
    def pass_age_s(self) -> float:
        """How long the forward pass under way has run; 0 where there is none."""
        return 0.0 if self._pass_started is None else self._clock() - self._pass_started

    @property
    def worked_s(self) -> float:
        """How long forward passes have run, all together."""
        return self._worked_s + self.pass_age_s

    def cost_curve(self) -> Coefficients | None:
        """What a forward pass costs, as learned from those that ran; None before the first."""
        return self.curve.coefficients() if self.curve.n_observed else None

    async def submit(
        self,
        batch: Encoded,
        timeouts_s: Float32,
        flows: FlowRuns | None = None,
        alone: bool = False,
        call_id: int = 0,
    ) -> Logits:
        """Logits of all texts of `batch`, in order. timeouts_s: float32 [n], seconds left to each.

        flows: whose turn they take; None: the default one's. alone: in no pass with other calls'.
        call_id: to be found by in `running`.

        Raises:
            Overloaded: the queue is full.
            Hung: the model is abandoned, with these texts or others.
        """
        if self._abandoned:
            raise Hung((), 0)
        if len(timeouts_s) != len(batch):
            raise ValueError(f"{len(timeouts_s)} timeouts for {len(batch)} texts")
        if not len(batch):
            return Logits(np.zeros((0, 1), np.float32))
        if self.queued_tokens and self.queued_tokens + batch.total_tokens > self.max_queue_tokens:
            raise Overloaded(
                f"{self.queued_tokens} tokens wait for the model; the limit is "
                f"{self.max_queue_tokens}. Send fewer requests at once, or add replicas.",
                self._drain_time_s(),
            )
        loop = asyncio.get_running_loop()
        now = self._clock()
        call = Call(
            batch, now + timeouts_s.astype(np.float64), now, loop.create_future(), alone, call_id
        )
        self._queue.put(call, flows)
        if self._loop_task is None or self._loop_task.done():
            # A context of its own: Serve cancels what was started in the context of a request
            # whose client hung up, and this loop works for everybody.
            self._loop_task = loop.create_task(self._work(), context=contextvars.Context())
        try:
            return await call.future
        except asyncio.CancelledError:
            self._queue.forget(call)
            raise

    def abandon(self) -> None:
        """To be called when the forward pass under way hangs: all calls, later ones too, end."""
        self._abandoned = True
        suspects: dict[Call, list[int]] = {call: [] for call in self._queue.drain()}
        for piece in self.running:
            suspects.setdefault(piece.call, []).extend(range(piece.start, piece.stop))
        n_texts = sum(map(len, self.running))
        for call, places in suspects.items():
            if not call.future.done():
                call.future.set_exception(Hung(places, n_texts))

    async def _work(self) -> None:
        while batch := self._next_batch():
            try:
                await self._answer(batch)
            except Exception as exc:  # the loop must live on, whatever happened to this batch
                logger.error("a batch could not be answered: %s", type(exc).__name__)
                for piece in batch:
                    piece.fail(_failure(exc))

    def _next_batch(self) -> list[Slice]:
        now = self._clock()
        batch = self._queue.take(self.max_batch_tokens, now)
        if batch and self.target_p99_ms is not None:
            slack = MAX_SLACK * self._idle_s / max(self._idle_s + self._busy_s, 1e-9)
            lengths, waits_s = lengths_and_waits(batch, now)
            target_s = self.target_p99_ms / 1e3
            n_texts = texts_within(self.curve, target_s, lengths, waits_s, slack)
            batch, rest = cut(batch, n_texts)
            self._queue.put_back(rest)
        return batch

    async def _answer(self, batch: list[Slice]) -> None:
        """Runs a batch, and its halves where it fails, until each of its texts has an answer."""
        groups = deque([batch])
        failures, answered, worked = 0, False, False
        dead: BaseException | None = None
        while groups:
            group = living(groups.popleft(), self._clock())
            if not group:
                continue
            try:
                outcome = await self._forward(group) if dead is None else dead
            except asyncio.CancelledError:
                groups.appendleft(group)  # this task was cancelled; its callers may still wait
                continue
            if isinstance(outcome, Logits):
                worked |= _deliver(group, outcome)
                answered = True
                continue
            failures += 1
            if failures == MAX_FAILURES and not worked:
                dead = outcome
            n_texts = sum(map(len, group))
            if n_texts > 1 and dead is None:
                groups.extend(cut(group, n_texts // 2))
                continue
            logger.error("%d texts failed: %s", n_texts, type(outcome).__name__)
            error = _failure(outcome)
            for piece in group:
                piece.fail(error)
            worked |= not isinstance(error, PredictionFailed)
            answered = True
        if answered:
            self.failed_batches = 0 if worked else self.failed_batches + 1

    async def _forward(self, group: list[Slice]) -> Logits | BaseException:
        """One forward pass, or what went wrong with it."""
        parts = [piece.encoded() for piece in group]
        self.running = group
        started = self._pass_started = self._clock()
        for piece in group:
            self._observer.stage("queue", started - piece.call.arrived, len(piece))
        try:
            outcome: Logits | BaseException = await self._run(self._predict_all, parts)
        except Exception as exc:  # no thread to be had, for one
            return exc
        finally:
            self._worked_s += self.pass_age_s
            self._pass_started = None
            self.running = []
        ended = self._clock()
        for call in {piece.call for piece in group}:
            call.model_s += ended - started
        if isinstance(outcome, Logits):
            self._learn(parts, ended - started)
            if self.on_pass is not None:
                tokens = sum(part.total_tokens for part in parts)
                calls = [piece.call.id for piece in group]
                self.on_pass(calls, ended - started, sum(map(len, parts)), tokens)
        self._idle_s += (started - self._ended - self._idle_s) / _IDLE_MEMORY
        self._busy_s += (ended - started - self._busy_s) / _IDLE_MEMORY
        self._ended = ended
        return outcome

    def _predict_all(self, parts: list[Encoded]) -> Logits | BaseException:
        # Returned, not raised: a StopIteration, a CancelledError or a KeyboardInterrupt from below
        # would end what awaits it. A panic in Rust code is no Exception.
        try:
            texts = Encoded.concat(parts)
            logits = self._predict(texts)
            values = np.array(logits.values, np.float32)  # copied: engines may use theirs again
            n_rows, n_values = values.shape
            if n_rows != len(texts):
                raise ValueError(f"{n_rows} rows for {len(texts)} texts")
            if n_values != (self._n_values or n_values):
                raise ValueError(f"{n_values} values a text, {self._n_values} before")
            errors = dict(logits.errors or {})
            finite = np.isfinite(values)
            if not finite.all():
                bad = np.flatnonzero(~finite.all(axis=1)).tolist()
                errors = dict.fromkeys(bad, _NOT_FINITE) | errors
        except BaseException as exc:
            # Its frames hold the texts, and one further out will hold the error: a cycle.
            exc.__traceback__ = exc.__cause__ = exc.__context__ = None
            return exc
        self._n_values = n_values
        return Logits(values, errors or None)

    def _learn(self, parts: list[Encoded], elapsed_s: float) -> None:
        tokens = sum(part.total_tokens for part in parts)
        longest = max(int(part.lengths.max()) for part in parts)
        self.observe(tokens, longest, elapsed_s)
        n_texts = sum(map(len, parts))
        self._observer.stage("model", elapsed_s, n_texts)
        self._observer.batch(n_texts, tokens, longest)
        self.passes += 1
        self.read_texts += n_texts
        self.read_tokens += tokens
        logger.debug("%d tokens in %.4f s; %d wait", tokens, elapsed_s, self.queued_tokens)

    def observe(self, tokens: int, longest: int, elapsed_s: float) -> None:
        """A pass over `tokens` tokens, of which the longest text has `longest`, took so long."""
        self.curve.observe(tokens, longest, elapsed_s)
        weight = 1 / min(self.curve.n_observed, SPEED_MEMORY)
        self._usual_longest += weight * (longest - self._usual_longest)

    @property
    def tokens_per_s(self) -> float:
        """What the model reads in full batches of texts as they come; 0 before the first pass."""
        if not self.curve.n_observed:
            return 0.0
        tokens = self.max_batch_tokens
        pass_s = max(self.curve.coefficients().pass_s(tokens, self._usual_longest), 1e-6)
        return tokens / pass_s * (HOPE if self.curve.most_tokens < tokens / 2 else 1.0)

    def holding(self) -> set[int]:
        """The `call_id` of calls that need no second replica: those in the pass under way, and
        those that wait while the model gets on with its passes."""
        held = {piece.call.id for piece in self.running}
        tokens = sum(piece.tokens for piece in self.running)
        expected_s = self.curve.coefficients().pass_s(tokens, self._usual_longest)
        if self.pass_age_s <= max(MIN_PATIENCE_S, STUCK_FACTOR * expected_s):
            held |= self._queue.call_ids()
        return held

    def _drain_time_s(self) -> float:
        return min(max(self.queued_tokens / max(self.tokens_per_s, 1.0), 1.0), 60.0)


_NOT_FINITE = PredictionFailed("The model gave no finite number for this text.")


def _deliver(group: list[Slice], logits: Logits) -> bool:
    """Gives each call its rows. Whether the model worked on any text."""
    errors = logits.errors or {}
    first = 0
    for piece in group:
        last = first + len(piece)
        if not errors:
            piece.call.answer(piece.start, logits.values[first:last])
        else:
            for row, index in zip(range(first, last), range(piece.start, piece.stop), strict=True):
                if error := errors.get(row):
                    piece.call.fail(index, index + 1, error)
                else:
                    piece.call.answer(index, logits.values[row : row + 1])
        first = last
    return not all(isinstance(errors.get(row), PredictionFailed) for row in range(first))


def _failure(exc: BaseException) -> ServiceError:
    # Never the message: it may quote the text.
    if isinstance(exc, ServiceError):
        return exc
    return PredictionFailed(f"The model failed on this text ({type(exc).__name__}).")


T = TypeVar("T")


class ModelThread:
    """One function at a time, outside the event loop.

    An engine is loaded here too. OpenMP keeps a pool of threads for each thread that it is called
    from, and two pools on the same cores double the time of a short pass (docs/log.md).
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def __call__(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def wait_for(self, function: Callable[[], T]) -> T:
        """The same for callers that may block, such as a replica that starts."""
        return self._executor.submit(function).result()

    def close(self) -> None:
        """Ends the thread once it is done with what it was given."""
        self._executor.shutdown(wait=True)
