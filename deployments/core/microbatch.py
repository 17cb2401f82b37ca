"""The ingress's gatherer: one call to the classifier carries all texts that arrived meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from deployments.core.errors import DeadlineExceeded, Overloaded, ServiceError
from deployments.core.types import Answer, TextInput

logger = logging.getLogger(__name__)

Result = Answer | ServiceError
Run = Callable[[Sequence[TextInput], Sequence[float]], Awaitable[list[Result]]]


@dataclass(slots=True)
class _Waiter:
    item: TextInput
    deadline: float
    future: asyncio.Future[Result]


class MicroBatcher:
    """Sends micro-batches at once when idle, and at most every `min_gap_s` under load.

    The pause is what lets a batch gather: a call costs as much as ten texts in it. It ends early
    where nothing is under way and as many texts wait as there were when a call was last answered:
    who was answered together asks again together. So a lone caller never waits, nor does anybody
    where calls take longer than the pause. A fixed low limit on calls under way would gather too,
    but leave all but the first classifiers idle.

    run: answers a micro-batch; gets the texts and the seconds left to each.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_texts: int,
        max_inflight: int,
        min_gap_s: float,
        max_pending: int,
    ) -> None:
        self.pending = 0
        self._run = run
        self._max_texts = max_texts
        self._max_inflight = max_inflight
        self._min_gap_s = min_gap_s
        self._max_pending = max_pending
        self._queue: deque[_Waiter] = deque()
        self._inflight: dict[asyncio.Task[None], list[_Waiter]] = {}
        self._last_sent = float("-inf")
        self._expected = 0
        self._wakeup: asyncio.Handle | None = None
        self._pausing = False

    async def submit(self, items: Sequence[TextInput], timeout_s: float) -> list[Result]:
        """One result per item, in order.

        Raises:
            Overloaded: too many texts wait; nothing of this call was taken in.
            DeadlineExceeded: `timeout_s` passed before all were answered.
        """
        if self.pending and self.pending + len(items) > self._max_pending:
            raise Overloaded(
                f"{self.pending} texts wait in this replica; the limit is {self._max_pending}. "
                "Send fewer at once, or add Tokenizer and Classifier replicas."
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        waiters = [_Waiter(item, deadline, loop.create_future()) for item in items]
        self._queue.extend(waiters)
        self.pending += len(items)
        self._schedule(loop)
        answered = False
        try:
            async with asyncio.timeout_at(deadline):
                results = [await waiter.future for waiter in waiters]
            answered = True
            return results
        except TimeoutError:
            raise DeadlineExceeded(
                f"No answer within {timeout_s:g} s. Retry later, send fewer texts, or raise "
                "args.limits.request_timeout_s."
            ) from None
        finally:
            self.pending -= len(items)
            if not answered:
                for waiter in waiters:
                    waiter.future.cancel()
                self._end_abandoned()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sets when to send next; to be called when texts come and when a call ends."""
        if not self._queue or len(self._inflight) >= self._max_inflight:
            return
        if self._wakeup is not None and not self._pausing:
            return
        pause_s = self._last_sent + self._min_gap_s - loop.time()
        all_back = not self._inflight and len(self._queue) >= self._expected
        if pause_s <= 0 or all_back:
            if self._wakeup is not None:
                self._wakeup.cancel()
            self._pausing = False
            # Not here and now: other requests may arrive in this very turn of the loop.
            self._wakeup = loop.call_soon(self._send, loop, context=contextvars.Context())
        elif self._wakeup is None:
            self._pausing = True
            self._wakeup = loop.call_later(pause_s, self._send, loop, context=contextvars.Context())

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        self._wakeup = None
        waiters: list[_Waiter] = []
        while self._queue and len(waiters) < self._max_texts:
            waiter = self._queue.popleft()
            if not waiter.future.done():
                waiters.append(waiter)
        if waiters:
            self._last_sent = loop.time()
            # A context of its own: Serve cancels what was started in the context of a request
            # whose client hung up, and this call works for everybody in the batch.
            task = loop.create_task(self._answer(waiters, loop), context=contextvars.Context())
            self._inflight[task] = waiters
            task.add_done_callback(self._sent)
        self._schedule(loop)

    def _sent(self, task: asyncio.Task[None]) -> None:
        del self._inflight[task]
        self._schedule(task.get_loop())

    def _end_abandoned(self) -> None:
        """Ends the calls that nobody waits for, so that the model's time is left to the others."""
        for task, waiters in self._inflight.items():
            if all(waiter.future.done() for waiter in waiters):
                task.cancel()

    async def _answer(self, waiters: list[_Waiter], loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        results: Sequence[Result]
        try:
            results = await self._run(
                [waiter.item for waiter in waiters], [waiter.deadline - now for waiter in waiters]
            )
            if len(results) != len(waiters):
                raise ValueError(f"{len(results)} results for {len(waiters)} texts")
        except ServiceError as exc:
            exc.__traceback__ = None  # its frames hold the texts, and this one the error: a cycle
            results = [exc] * len(waiters)
        except BaseException as exc:
            # Of every kind: whatever ends this task, those who wait must hear of it. A panic in the
            # tokenizers' Rust, for one, is no Exception.
            results = [ServiceError()] * len(waiters)
            if not all(waiter.future.done() for waiter in waiters):
                logger.error("micro-batch of %d texts failed: %s", len(waiters), type(exc).__name__)
        self._expected = self.pending
        for waiter, result in zip(waiters, results, strict=True):
            if not waiter.future.done():
                waiter.future.set_result(result)
