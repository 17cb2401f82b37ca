"""Calls that lose their replica or get stuck, in virtual time."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from virtual_time import after, run_virtually

from deployments.pipeline.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError
from deployments.pipeline.retry import (
    MIN_PATIENCE_S,
    Attempts,
    Hung,
    LostReplica,
    RetryBudget,
)

NEVER = float("inf")


class Replicas:
    """The i-th call takes so long, then answers its number or raises."""

    def __init__(self, *calls: tuple[float, BaseException | None]) -> None:
        self.started_s: list[float] = []
        self.cancelled_s: dict[int, float] = {}
        self._calls = calls

    async def __call__(self) -> int:
        loop = asyncio.get_running_loop()
        number = len(self.started_s)
        self.started_s.append(loop.time())
        takes_s, error = self._calls[min(number, len(self._calls) - 1)]
        try:
            await (asyncio.Event().wait() if takes_s == NEVER else asyncio.sleep(takes_s))
        except asyncio.CancelledError:
            self.cancelled_s[number] = loop.time()
            raise
        if error:
            raise error
        return number


def run(
    replicas: Replicas, *, reserve: int = 10, timeout_s: float = 30.0, before: Any = None
) -> tuple[Any, float]:
    """The answer or error, and when it came."""

    async def main() -> tuple[Any, float]:
        loop = asyncio.get_running_loop()
        attempts = Attempts(RetryBudget(reserve), RetryBudget(reserve))
        if before is not None:
            await attempts.run(before, after(timeout_s))
        try:
            answer: Any = await attempts.run(replicas, after(timeout_s))
        except ServiceError as exc:
            answer = exc
        except LostReplica as exc:
            answer = exc
        answered_s = loop.time()
        await asyncio.sleep(2 * timeout_s)  # what is left behind ends too
        assert len(asyncio.all_tasks()) == 1
        return answer, answered_s

    return run_virtually(main())


def test_one_call_where_all_is_well() -> None:
    replicas = Replicas((0.5, None))
    assert run(replicas) == (0, 0.5)
    assert len(replicas.started_s) == 1


def test_a_lost_call_is_made_again_at_once() -> None:
    replicas = Replicas((0.2, LostReplica()), (0.2, LostReplica()), (0.1, None))
    assert run(replicas) == (2, pytest.approx(0.5))


def test_the_third_loss_is_the_last() -> None:
    replicas = Replicas((0.1, LostReplica()))
    answer, _ = run(replicas)
    assert isinstance(answer, LostReplica)
    assert len(replicas.started_s) == 3


def test_a_replicas_own_error_is_passed_on_at_once() -> None:
    replicas = Replicas((0.1, Overloaded("full")))
    answer, _ = run(replicas)
    assert isinstance(answer, Overloaded)
    assert len(replicas.started_s) == 1


def test_a_stuck_call_is_joined_by_another_and_left_until_its_deadline() -> None:
    replicas = Replicas((NEVER, None), (0.1, None))
    answer, answered_s = run(replicas, timeout_s=30.0)
    assert (answer, answered_s) == (1, pytest.approx(MIN_PATIENCE_S + 0.1))
    # Until then it keeps the next calls away from the replica that is stuck.
    assert replicas.cancelled_s == {0: 30.0}


def test_where_the_second_is_stuck_too_a_third_is_asked() -> None:
    replicas = Replicas((NEVER, None), (NEVER, None), (0.1, None))
    answer, answered_s = run(replicas, timeout_s=30.0)
    assert (answer, answered_s) == (2, pytest.approx(2 * MIN_PATIENCE_S + 0.1))


def test_what_a_replica_is_at_work_on_is_given_to_no_other() -> None:
    replicas = Replicas((NEVER, None), (0.1, None))
    answers = iter([True, True, False])

    async def main() -> tuple[int, float]:
        async def held() -> bool:
            return next(answers)

        answer = await Attempts(RetryBudget(9), RetryBudget(9)).run(
            replicas, after(30.0), held=held
        )
        return answer, asyncio.get_running_loop().time()

    assert run_virtually(main()) == (1, pytest.approx(3 * MIN_PATIENCE_S + 0.2))


def test_a_replica_that_ends_itself_with_a_text_is_told_at_once() -> None:
    replicas = Replicas((5.0, Hung([1], 4)), (0.1, None))

    async def main() -> None:
        async def held() -> bool:
            return True

        with pytest.raises(Hung) as told:
            await Attempts(RetryBudget(9), RetryBudget(9)).run(replicas, after(30.0), held=held)
        there = pickle.loads(pickle.dumps(told.value))  # noqa: S301
        assert (there.suspects, there.n_texts) == ([1], 4)

    run_virtually(main())
    assert len(replicas.started_s) == 1


def test_the_first_of_two_answers_counts_though_it_was_late() -> None:
    replicas = Replicas((1.5, None), (9.0, None))
    assert run(replicas) == (0, 1.5)


@pytest.mark.parametrize("error", [LostReplica(), Overloaded("full")])
def test_where_the_second_fails_the_first_is_still_waited_for(error: Exception) -> None:
    replicas = Replicas((5.0, None), (0.1, error))
    assert run(replicas) == (0, 5.0)


def test_calls_that_are_long_by_nature_are_not_joined() -> None:
    replicas = Replicas((9.0, None))
    answer, answered_s = run(replicas, before=lambda: asyncio.sleep(4.0))
    assert (answer, answered_s, len(replicas.started_s)) == (0, 13.0, 1)


def test_a_call_that_waits_for_the_model_to_load_is_not_stuck() -> None:
    async def main() -> None:
        attempts = Attempts(RetryBudget(9), RetryBudget(9), loading=True)
        loading = Replicas((600.0, None))
        assert await attempts.run(loading, after(3_600.0)) == 0
        assert len(loading.started_s) == 1
        attempts.loaded()
        stuck = Replicas((NEVER, None), (0.1, None))
        assert await attempts.run(stuck, after(30.0)) == 1

    run_virtually(main())


def test_a_call_that_hangs_everywhere_ends_with_its_time() -> None:
    replicas = Replicas((NEVER, None))
    answer, answered_s = run(replicas, timeout_s=7.0)
    assert isinstance(answer, DeadlineExceeded)
    assert answered_s == 7.0
    assert replicas.cancelled_s == {0: 7.0, 1: 7.0, 2: 7.0}


def test_a_short_deadline_leaves_time_for_a_second_try() -> None:
    replicas = Replicas((NEVER, None), (0.1, None))
    assert run(replicas, timeout_s=0.6) == (1, pytest.approx(0.4))


def test_a_cancelled_caller_takes_its_calls_along() -> None:
    replicas = Replicas((NEVER, None))

    async def main() -> None:
        task = asyncio.create_task(
            Attempts(RetryBudget(9), RetryBudget(9)).run(replicas, after(30.0))
        )
        await asyncio.sleep(2.0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert task.cancelled()

    run_virtually(main())
    assert replicas.cancelled_s == {0: 2.0, 1: 2.0}


@pytest.mark.parametrize("calls", [100, 10_000])
def test_where_every_replica_dies_calls_do_not_multiply(calls: int) -> None:
    """The reserve, then a tenth more: not three times as many."""
    replicas = Replicas((0.01, LostReplica()))
    refused = 0

    async def main() -> None:
        nonlocal refused
        attempts = Attempts(RetryBudget(reserve=20), RetryBudget(reserve=20))
        for _ in range(calls):
            try:
                await attempts.run(replicas, after(30.0))
            except NotReady:
                refused += 1
            except LostReplica:
                pass

    run_virtually(main())
    assert len(replicas.started_s) <= 1.1 * calls + 20
    assert refused > 0.8 * calls - 20


def test_where_every_replica_is_slow_calls_do_not_multiply() -> None:
    calls: list[int] = []

    async def slow() -> None:
        calls.append(1)
        await asyncio.sleep(20.0 if len(calls) < 1_000 else 0)

    async def main() -> None:
        attempts = Attempts(RetryBudget(reserve=20), RetryBudget(reserve=20))
        await asyncio.gather(*[attempts.run(slow, after(30.0)) for _ in range(500)])

    run_virtually(main())
    assert len(calls) <= 500 + 20


def test_a_budget_recovers_with_calls() -> None:
    budget = RetryBudget(reserve=2, share=0.5)
    spend: Callable[[], bool] = budget.spend
    assert [spend(), spend(), spend()] == [True, True, False]
    budget.earn()
    assert not spend()
    budget.earn()
    assert spend()
