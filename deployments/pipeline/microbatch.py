"""The ingress's gatherer: one call to the classifier carries all texts that arrived meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.pipeline.errors import DeadlineExceeded, ServiceError
from deployments.pipeline.gate import Gate
from deployments.pipeline.observer import Tracer
from deployments.pipeline.types import BULK_FROM_TEXTS, Answer, Flow, TextInput

logger = logging.getLogger(__name__)

Result = Answer | ServiceError
Run = Callable[[Sequence[TextInput], Sequence[float]], Awaitable[list[Result]]]


# The tokenizer takes 1 ms for 1,000 to 30,000 characters.
LONG_CHARS = 10_000


def is_long(item: TextInput) -> bool:
    """Whether it takes the tokenizer so long that nobody else should wait for it."""
    return len(item.text) + len(item.text_pair or "") > LONG_CHARS


# Further in, a text is waited for so much longer: who waits here ends first, and can name the time.
LATER_S = 0.05


@dataclass(slots=True)
class _Waiter:
    item: TextInput
    work: float
    deadline: float
    future: asyncio.Future[Result]
    trace: Any = None


class MicroBatcher:
    """Sends micro-batches at once when idle, and at most every `min_gap_s` under load.

    The pause is what lets a batch gather: a call costs as much as ten texts in it. It ends early
    where nothing is under way and as many texts wait as there were when a call was last answered:
    who was answered together asks again together. So a lone caller never waits, nor does anybody
    where calls take longer than the pause. A fixed low limit on calls under way would gather too,
    but leave all but the first classifiers idle.

    First come, first served: turns are taken at the classifier, where texts of all ingress replicas
    meet. What is sent at once is spread over the classifiers that are known, in calls of about the
    same work: who was answered together asks together again, and would keep one of them busy and
    the others idle. A call is answered as a whole, so a flow that has many texts with the
    classifier goes in calls of its own, and long texts in theirs: nobody else's answer may wait for
    its last text, nor for its tokenizing.

    run: answers a micro-batch; gets the texts and the deadline of each.
    gate: takes requests in, or refuses them. work_of: what a text costs, in the gate's unit.
    tracer: told which requests are in which micro-batch.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_texts: int,
        max_inflight: int,
        min_gap_s: float,
        gate: Gate,
        work_of: Callable[[TextInput], float] = lambda item: 1.0,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._gate = gate
        self._work_of = work_of
        self._run = run
        self._max_texts = max_texts
        self._max_inflight = max_inflight
        self._min_gap_s = min_gap_s
        self._queue: deque[_Waiter] = deque()
        self._inflight: dict[asyncio.Task[None], list[_Waiter]] = {}
        self._at_classifier: Counter[Flow] = Counter()
        self._last_sent = float("-inf")
        self._expected = 0
        self._wakeup: asyncio.Handle | None = None
        self._pausing = False

    @property
    def pending(self) -> int:
        """Texts taken in and not answered yet."""
        return self._gate.pending

    async def submit(
        self, items: Sequence[TextInput], deadline: float, timeout_s: float | None = None
    ) -> list[Result]:
        """One result per item, in order. All items are of one flow.

        timeout_s: what the caller was given, for the error; None: what is left now.

        Raises:
            Overloaded: too many texts wait, or for too long; nothing of this call was taken in.
            DeadlineExceeded: it passed before all were answered.
        """
        if not items:
            return []
        flow = items[0].flow
        works = [self._work_of(item) for item in items]
        work = sum(works)
        loop = asyncio.get_running_loop()
        left_s = deadline - loop.time()
        self._gate.enter(flow, len(items), work, left_s)
        trace = self._tracer.current() if self._tracer is not None else None
        waiters = [
            _Waiter(item, work, deadline, loop.create_future(), trace)
            for item, work in zip(items, works, strict=True)
        ]
        self._queue.extend(waiters)
        self._schedule(loop)
        answered = False
        try:
            async with asyncio.timeout_at(deadline):
                results = [await waiter.future for waiter in waiters]
            answered = True
            return results
        except TimeoutError:
            pass  # raised below: as its context this one would hold the task, which may hold it
        finally:
            self._gate.leave(flow, len(items), work)
            if not answered:
                gone = TextInput("", flow=flow)
                for waiter in waiters:
                    waiter.future.cancel()
                    waiter.item = gone  # it may wait on; its text must not
                self._end_abandoned()
        raise DeadlineExceeded(
            f"No answer within {round(timeout_s or left_s, 3):g} s. Retry later, send fewer texts, "
            "or allow more time: timeout_ms of the request, and args.limits.request_timeout_s "
            "above it."
        )

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
            if not (waiter := self._queue.popleft()).future.done():
                waiters.append(waiter)
        for call in self._spread(self._calls(waiters)):
            self._last_sent = loop.time()
            # A context of its own: Serve cancels what was started in the context of a request
            # whose client hung up, and this call works for everybody in the batch.
            task = loop.create_task(self._answer(call), context=contextvars.Context())
            self._inflight[task] = call
            task.add_done_callback(self._sent)
        self._schedule(loop)

    def _calls(self, waiters: list[_Waiter]) -> list[list[_Waiter]]:
        """One call for all, and one more for each flow and the long texts, as they would hold the
        others up."""
        if not waiters:
            return []
        by_flow: dict[Flow, list[_Waiter]] = {}
        long: list[_Waiter] = []
        for waiter in waiters:
            if is_long(waiter.item):
                long.append(waiter)
                self._at_classifier[waiter.item.flow] += 1
            else:
                by_flow.setdefault(waiter.item.flow, []).append(waiter)
        calls = [long] if long else []
        shared: list[_Waiter] = []
        for flow, own in by_flow.items():
            if len(by_flow) > 1 and len(own) + self._at_classifier[flow] >= BULK_FROM_TEXTS:
                calls.append(own)
            else:
                shared += own
            self._at_classifier[flow] += len(own)
        return [shared, *calls] if shared else calls

    def _spread(self, calls: list[list[_Waiter]]) -> list[list[_Waiter]]:
        """The same texts in calls of about as much work as the gate says."""
        works = [sum(waiter.work for waiter in call) for call in calls]
        share = self._gate.call_work(sum(works))
        spread: list[list[_Waiter]] = []
        for call, work in zip(calls, works, strict=True):
            n = round(work / share)
            if n < 2:
                spread.append(call)
                continue
            parts: list[list[_Waiter]] = [[] for _ in range(n)]
            done = 0.0
            for waiter in call:
                middle = done + waiter.work / 2
                parts[min(int(middle / work * n), n - 1)].append(waiter)
                done += waiter.work
            spread += filter(None, parts)  # none had its middle in one: a text is larger than it
        return spread

    def _sent(self, task: asyncio.Task[None]) -> None:
        for waiter in self._inflight.pop(task):
            self._at_classifier[waiter.item.flow] -= 1
            if not self._at_classifier[waiter.item.flow]:
                del self._at_classifier[waiter.item.flow]
        self._schedule(task.get_loop())

    def _end_abandoned(self) -> None:
        """Ends the calls that nobody waits for, so that the model's time is left to the others."""
        for task, waiters in self._inflight.items():
            if all(waiter.future.done() for waiter in waiters):
                task.cancel()

    async def _answer(self, waiters: list[_Waiter]) -> None:
        results: Sequence[Result]
        try:
            run = self._run(
                [waiter.item for waiter in waiters],
                [waiter.deadline + LATER_S for waiter in waiters],
            )
            if self._tracer is None:
                results = await run
            else:
                with self._tracer.batch([waiter.trace for waiter in waiters]):
                    results = await run
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
        answered = [
            (waiter.work, result["tokens"])
            for waiter, result in zip(waiters, results, strict=True)
            if not isinstance(result, ServiceError) and "tokens" in result
        ]
        self._gate.capacity.answered(sum(w for w, _ in answered), sum(n for _, n in answered))
        for waiter, result in zip(waiters, results, strict=True):
            if not waiter.future.done():
                waiter.future.set_result(result)
