"""An event loop whose clock stands still while code runs, and jumps to the next timer else.

Whole hours of traffic run in seconds, and the same way every time. Nothing here sleeps, and no
thread is started: a forward pass is a coroutine that takes as long as a cost model says.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from deployments.pipeline.batcher import TokenBatcher
from deployments.pipeline.gate import Gate, work_of
from deployments.pipeline.microbatch import MicroBatcher, Run
from deployments.pipeline.types import Encoded, Logits, Predicted

Result = TypeVar("Result")

HANGS_S = 1e6


class _Jump(selectors.SelectSelector):
    """Waits for nothing: moves the clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits and nothing will ever happen")
        self.now += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs `main` from second zero on; fails where it waits for what can never happen."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def after(seconds: float) -> float:
    """A deadline, by the running loop's clock, virtual or not."""
    return asyncio.get_running_loop().time() + seconds


@dataclass
class Pass:
    """One forward pass that ran: what was in it, and when."""

    lengths: list[int]
    marks: list[int]
    started: float
    ended: float


@dataclass
class VirtualModel:
    """A text's logit is its first token. A pass takes `cost_s(tokens, longest)` of virtual time.

    The first token of a text is its mark: `fails(marks)` says on which batches the model raises,
    `hangs(marks)` on which it never ends.
    """

    cost_s: Callable[[int, int], float]
    fails: Callable[[list[int]], bool] = lambda marks: False
    hangs: Callable[[list[int]], bool] = lambda marks: False
    passes: list[Pass] = field(default_factory=list)
    running: bool = False

    def batcher(self, **settings: Any) -> TokenBatcher:
        """A queue before this model, in virtual time. Must be made inside the loop."""
        settings = {"max_batch_tokens": 4096, "max_queue_tokens": 1_000_000, **settings}
        loop = asyncio.get_running_loop()
        return TokenBatcher(self._predict, clock=loop.time, run=self._run, **settings)

    def _predict(self, batch: Encoded) -> Logits:
        marks = batch.input_ids[np.cumsum(batch.lengths) - batch.lengths]
        now = asyncio.get_running_loop().time()
        cost_s = self.cost_s(batch.total_tokens, int(batch.lengths.max()))
        if self.hangs(marks.tolist()):
            cost_s = HANGS_S
        self.passes.append(Pass(batch.lengths.tolist(), marks.tolist(), now, now + cost_s))
        if self.fails(marks.tolist()):
            raise RuntimeError("the model fails on this batch")
        return Logits(marks.astype(np.float32)[:, None])

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        assert not self.running, "two forward passes at a time"
        self.running = True
        try:
            result = function(*args)
            await asyncio.sleep(self.passes[-1].ended - self.passes[-1].started)
            return result
        finally:
            self.running = False


def ingress(run: Run, gate: Gate) -> MicroBatcher:
    """What gathers before this model, as shipped; texts may have 512 characters."""
    return MicroBatcher(
        run,
        max_texts=256,
        max_inflight=64,
        min_gap_s=0.01,
        gate=gate,
        work_of=lambda item: work_of(item, 512),
    )


def texts(*lengths: int, mark: int = 1) -> Encoded:
    """Texts of these lengths, the first tokens of which are `mark`, `mark` + 1, and so on."""
    ids = np.ones(sum(lengths), np.int32)
    ids[np.cumsum(lengths) - np.asarray(lengths)] = np.arange(mark, mark + len(lengths))
    return Encoded(ids, np.asarray(lengths, np.int32))


def judged(predicted: Predicted) -> list[int | type]:
    """Each text's mark as the model told it, or the kind of its error."""
    found: dict[int, int | type] = {i: type(error) for i, error in predicted.errors.items()}
    for places, logits in predicted.parts:
        errors = logits.errors or {}
        for k, place in enumerate(places):
            found[place] = type(errors[k]) if k in errors else int(logits.values[k, 0])
    return [found[i] for i in sorted(found)]
