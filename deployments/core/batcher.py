"""The classifier's queue: merges micro-batches from all callers into batches by token budget.

A batch is formed only when the model is free, so nothing waits behind a half-empty batch and
nothing waits for a timer (compare `@serve.batch`, which forms batches before the model is free).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from deployments.core.errors import DeadlineExceeded, Overloaded, PredictionFailed, ServiceError
from deployments.core.types import Encoded, Float32, Logits

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """One caller's micro-batch, complete when each of its texts is answered."""

    size: int
    future: asyncio.Future[Logits]
    rows: dict[int, Float32] = field(default_factory=dict)
    errors: dict[int, ServiceError] = field(default_factory=dict)

    def answer(self, index: int, result: Float32 | ServiceError) -> None:
        if isinstance(result, ServiceError):
            self.errors[index] = result
        else:
            self.rows[index] = result
        if len(self.rows) + len(self.errors) == self.size and not self.future.done():
            self.future.set_result(self._logits())

    def _logits(self) -> Logits:
        width = len(next(iter(self.rows.values()))) if self.rows else 1
        values = np.zeros((self.size, width), np.float32)
        for index, row in self.rows.items():
            values[index] = row
        return Logits(values, self.errors or None)


@dataclass(slots=True)
class _Job:
    """One text in the queue."""

    text: Encoded
    deadline: float
    call: _Call
    index: int


class TokenBatcher:
    """Feeds a model one batch at a time, oldest texts first, up to `max_batch_tokens`.

    A text longer than the budget runs alone. Cancelled and expired texts are never run. Where the
    model raises, the batch is halved until the text at fault stands alone; only that one fails.

    predict: runs in a thread of its own, never two at a time.
    max_batch_tokens, max_queue_tokens: may be changed at any time.
    failed_batches: how many batches in a row, up to now, had no text on which the model worked.
    """

    def __init__(
        self,
        predict: Callable[[Encoded], Logits],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.max_queue_tokens = max_queue_tokens
        self.queued_tokens = 0
        self.failed_batches = 0
        self._predict = predict
        self._clock = clock
        self._queue: deque[_Job] = deque()
        self._loop_task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._tokens_per_s = 0.0

    async def submit(self, batch: Encoded, timeouts_s: Float32) -> Logits:
        """Logits of all texts of `batch`, in order. timeouts_s: float32 [n], seconds left to each.

        Raises:
            Overloaded: the queue is full.
        """
        if not len(batch):
            return Logits(np.zeros((0, 1), np.float32))
        if self.queued_tokens and self.queued_tokens + batch.total_tokens > self.max_queue_tokens:
            raise Overloaded(
                f"{self.queued_tokens} tokens wait for the model; the limit is "
                f"{self.max_queue_tokens}. Send fewer requests at once, or add replicas.",
                self._drain_time_s(),
            )
        loop = asyncio.get_running_loop()
        call = _Call(len(batch), loop.create_future())
        now = self._clock()
        jobs = [
            _Job(text, now + float(timeout_s), call, index)
            for index, (text, timeout_s) in enumerate(zip(batch.split(), timeouts_s, strict=True))
        ]
        self._queue.extend(jobs)
        self.queued_tokens += batch.total_tokens
        if self._loop_task is None or self._loop_task.done():
            # A context of its own: Serve cancels what was started in the context of a request
            # whose client hung up, and this loop works for everybody.
            self._loop_task = loop.create_task(self._run(), context=contextvars.Context())
        try:
            return await call.future
        except asyncio.CancelledError:
            self._forget(call)
            raise

    def _forget(self, call: _Call) -> None:
        """Takes a cancelled call out of the queue, so that it makes no other call wait or fail."""
        waiting = [job for job in self._queue if job.call is not call]
        self._queue = deque(waiting)
        self.queued_tokens = sum(job.text.total_tokens for job in waiting)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while jobs := self._take():
            started = self._clock()
            try:
                results = await loop.run_in_executor(self._thread, self._run_batch, jobs)
            except asyncio.CancelledError:  # the process ends
                raise
            except BaseException as exc:  # the loop must live on, whatever happened to this batch
                logger.error("batch of %d texts failed: %s", len(jobs), type(exc).__name__)
                results = [_failure(exc)] * len(jobs)
            if all(isinstance(result, PredictionFailed) for result in results):
                self.failed_batches += 1
            else:
                self.failed_batches = 0
            self._learn_rate(jobs, self._clock() - started)
            logger.debug("batch of %d texts; %d tokens wait", len(jobs), self.queued_tokens)
            for job, result in zip(jobs, results, strict=True):
                job.call.answer(job.index, result)

    def _take(self) -> list[_Job]:
        """The next batch: oldest first, as a long text must not starve behind short ones."""
        jobs: list[_Job] = []
        tokens = 0
        now = self._clock()
        while self._queue:
            job = self._queue[0]
            size = job.text.total_tokens
            waiting = not job.call.future.done()
            if waiting and job.deadline > now:
                if jobs and tokens + size > self.max_batch_tokens:
                    break
                jobs.append(job)
                tokens += size
            elif waiting:
                job.call.answer(
                    job.index,
                    DeadlineExceeded(
                        "The request's time ran out in the queue. Retry later or allow more time."
                    ),
                )
            self._queue.popleft()
            self.queued_tokens -= size
        return jobs

    def _run_batch(self, jobs: list[_Job]) -> list[Float32 | ServiceError]:
        try:
            logits = self._predict(Encoded.concat([job.text for job in jobs]))
            if len(logits) != len(jobs):
                raise ValueError(f"{len(logits)} rows for {len(jobs)} texts")
        except BaseException as exc:  # a panic in Rust code below is no Exception
            if len(jobs) == 1:
                logger.error(
                    "a text of %d tokens failed: %s", jobs[0].text.total_tokens, type(exc).__name__
                )
                return [_failure(exc)]
            half = len(jobs) // 2
            return self._run_batch(jobs[:half]) + self._run_batch(jobs[half:])
        finite = np.logical_and.reduce(np.isfinite(logits.values), axis=1)
        errors = logits.errors or {}
        return [
            errors.get(i)
            or (
                logits.values[i]
                if finite[i]
                else PredictionFailed("The model gave no finite number for this text.")
            )
            for i in range(len(jobs))
        ]

    def _learn_rate(self, jobs: list[_Job], elapsed_s: float) -> None:
        tokens = sum(job.text.total_tokens for job in jobs)
        rate = tokens / max(elapsed_s, 1e-6)
        self._tokens_per_s = 0.8 * self._tokens_per_s + 0.2 * rate if self._tokens_per_s else rate

    def _drain_time_s(self) -> float:
        if not self._tokens_per_s:
            return 1.0
        return float(math.ceil(min(self.queued_tokens / self._tokens_per_s, 60.0)))


def _failure(exc: BaseException) -> ServiceError:
    # Never the message: it may quote the text.
    if isinstance(exc, ServiceError):
        return exc
    return PredictionFailed(f"The model failed on this text ({type(exc).__name__}).")
