"""A call to one of several replicas, tried again where one dies, and beside it where one is stuck.

Classification is idempotent, so a text may be classified twice. Neither may feed on itself: where
many replicas die or all are slow, more calls make it worse, so all further tries are paid from a
budget that calls fill, and none outlives the caller's deadline.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from deployments.pipeline.errors import DeadlineExceeded, NotReady, ServiceError
from deployments.pipeline.observer import SILENT, Observer

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TRIES = 3
# The second of two may meet the same stuck replica; the more are left there, the likelier the next
# goes elsewhere.
MAX_JOINED = 2
# Of all calls, so many more may be made, besides the reserve.
RETRY_SHARE = 0.1
# A call is stuck when it takes so many times as long as the longest of late, and a second at least.
STUCK_FACTOR = 3.0
MIN_PATIENCE_S = 1.0
# A replica that ends itself is gone by then, and out of Serve's choice.
ENDING_S = 1.0
# What no replica holds any more may be answered already, and the answer be on its way.
_UNDER_WAY_S = 0.1
_FADING = 0.99  # of the longest, with each call: half of it after 69
_DYING = "Replicas die faster than calls can be tried again. Retry in a few seconds."


class LostReplica(Exception):
    """The replica died with the call on it, or was stopped."""


class Hung(LostReplica):
    """The replica ends itself in a second, as a forward pass does not end.

    suspects: which texts of the call are in that pass, if any; n_texts: how many it has.
    """

    def __init__(self, suspects: Sequence[int], n_texts: int) -> None:
        super().__init__(suspects, n_texts)  # pickle calls the constructor with these
        self.suspects, self.n_texts = suspects, n_texts


class RetryBudget:
    """How many more calls may be made than callers asked for.

    reserve: calls that a replica may take with it when it dies.
    """

    def __init__(self, reserve: int, share: float = RETRY_SHARE) -> None:
        self._reserve = self._left = float(reserve)
        self._share = share

    def earn(self) -> None:
        self._left = min(self._left + self._share, self._reserve)

    def spend(self) -> bool:
        """Whether one more may be made; if so, it is counted."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Attempts:
    """Calls to one deployment. A call's awaitable raises LostReplica where its replica died.

    A call that is stuck is not ended but joined by another. Serve sends each to the replica with
    the fewest under way: what is left on a frozen replica keeps the next away from it.

    lost, stuck: what pays for calls made again, and for those that join others. Two budgets: calls
    that are stuck with a replica are lost with it later. loading: until `loaded()` a call waits for
    the first replica and counts as stuck only after half its time. observer: told of each further
    try.
    """

    def __init__(
        self,
        lost: RetryBudget,
        stuck: RetryBudget,
        *,
        loading: bool = False,
        observer: Observer = SILENT,
    ) -> None:
        self._observer = observer
        self._budget, self._joining = lost, stuck
        self._longest_s = math.inf if loading else 0.0
        self._left_behind: set[asyncio.Task[Any]] = set()

    async def run(
        self,
        call: Callable[[], Awaitable[T]],
        deadline: float,
        tries: int = MAX_TRIES,
        held: Callable[[], Awaitable[bool]] | None = None,
    ) -> T:
        """The first answer.

        tries: how many replicas may be lost with it. held: asked when a call is stuck, whether a
        replica has it and gets on: then another would only do the work twice.

        Raises:
            LostReplica: the last of `tries`; or Hung, at once.
            NotReady: one was lost, and the budget is spent.
            DeadlineExceeded: no answer by `deadline`, which is of the event loop's clock.
            ServiceError: what the replica raised.
        """
        loop = asyncio.get_running_loop()
        self._budget.earn()
        self._joining.earn()
        started = loop.time()
        patience_s = max(MIN_PATIENCE_S, STUCK_FACTOR * self._longest_s)
        stuck_at = started + min(patience_s, (deadline - started) / 2)
        pending = {loop.create_task(_awaited(call))}
        lost = joined = 0
        # A list, to be emptied: an error that a frame of its own holds is a cycle.
        failed: list[LostReplica | ServiceError] = []
        try:
            while True:
                until = min(stuck_at, deadline)
                done, pending = await asyncio.wait(
                    pending,
                    timeout=max(until - loop.time(), 0.0),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done and loop.time() >= deadline:
                    raise DeadlineExceeded("The model did not answer in time. Retry later.")
                for task in done:
                    try:
                        answer = task.result()
                    except (LostReplica, ServiceError) as exc:
                        failed.append(exc)
                    else:
                        self._longest_s = max(loop.time() - started, _FADING * self._longest_s)
                        self._leave_behind(pending, deadline)
                        pending = set()
                        return answer
                if done:
                    if pending:
                        continue
                    # Of those that met the same replica one counts: the one that tells most.
                    failed.sort(key=_tells)
                    del failed[:-1]
                    if isinstance(failed[0], ServiceError):
                        raise failed.pop()
                    logger.warning("a replica was lost with a call")
                    if _tells(failed[0]) == _INNOCENT:
                        # Not paid for: the replica had not begun with it.
                        failed.clear()
                        await asyncio.sleep(min(ENDING_S, max(deadline - loop.time(), 0.0)))
                        self._observer.retried("lost")
                    else:
                        lost += 1
                        if lost >= tries or isinstance(failed[0], Hung):
                            raise failed.pop()
                        failed.clear()
                        if not self._budget.spend():
                            raise NotReady(_DYING, 2.0)
                        self._observer.retried("lost")
                    joined = 0
                else:
                    if held is not None:
                        if await held():
                            stuck_at = loop.time() + patience_s
                            continue
                        wait_s = min(_UNDER_WAY_S, max(deadline - loop.time(), 0.0))
                        await asyncio.wait(pending, timeout=wait_s)
                    if any(task.done() for task in pending):
                        continue
                    if joined >= MAX_JOINED or not self._joining.spend():
                        stuck_at = deadline
                        continue
                    logger.warning("no answer after %.1f s, asking another", patience_s)
                    joined += 1
                    self._observer.retried("stuck")
                stuck_at = loop.time() + min(patience_s, (deadline - loop.time()) / 2)
                pending.add(loop.create_task(_awaited(call)))
        finally:
            for task in pending:
                task.cancel()

    def loaded(self) -> None:
        """From now on calls are short, and one that takes long is stuck."""
        self._longest_s = 0.0

    def _leave_behind(self, tasks: set[asyncio.Task[Any]], deadline: float) -> None:
        for task in tasks:
            self._left_behind.add(task)
            timer = task.get_loop().call_at(deadline, task.cancel)
            task.add_done_callback(partial(self._ended, timer))

    def _ended(self, timer: asyncio.TimerHandle, task: asyncio.Task[Any]) -> None:
        timer.cancel()
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody else asks for it


_INNOCENT = 1


def _tells(failure: LostReplica | ServiceError) -> int:
    """The more, the more it says about what became of a call."""
    if isinstance(failure, Hung):
        return 3 if failure.suspects else _INNOCENT
    return 2 if isinstance(failure, LostReplica) else 0


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()
