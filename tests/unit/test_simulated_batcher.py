"""The classifier's queue against virtual time: whatever arrives and whatever fails, every promise
of `TokenBatcher` holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import VirtualModel, run_virtually, texts

from deployments.pipeline.batcher import MAX_FAILURES, TokenBatcher
from deployments.pipeline.errors import DeadlineExceeded, PredictionFailed
from deployments.pipeline.types import Encoded, Logits


@dataclass(frozen=True)
class Caller:
    arrives: float
    lengths: list[int]
    poison: list[bool]
    timeout_s: float
    leaves_after: float | None


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=8)
SECONDS = st.integers(0, 40).map(lambda tenths: tenths / 10)


@st.composite
def callers(draw: st.DrawFn) -> Caller:
    lengths = draw(LENGTHS)
    poison = draw(st.lists(st.integers(0, 9), min_size=len(lengths), max_size=len(lengths)))
    return Caller(
        arrives=draw(SECONDS),
        lengths=lengths,
        poison=[dice == 0 for dice in poison],
        timeout_s=draw(st.sampled_from([0.35, 1.05, 2.05, 100.0])),
        leaves_after=draw(st.one_of(st.none(), SECONDS.map(lambda s: s + 0.05))),
    )


def plenty(batch: Encoded) -> np.ndarray:
    return np.full(len(batch), 1e6, np.float32)


@given(
    crowd=st.lists(callers(), min_size=1, max_size=14),
    budgets=st.lists(st.tuples(SECONDS, st.integers(1, 80)), min_size=1, max_size=3),
    target_p99_ms=st.sampled_from([None, 50.0, 500.0]),
)
@settings(max_examples=150, deadline=None)
def test_every_promise_holds_whatever_callers_do_and_whatever_fails(
    crowd: list[Caller], budgets: list[tuple[float, int]], target_p99_ms: float | None
) -> None:
    marks: dict[int, range] = {}  # of every caller's texts, numbered as they come
    poison: set[int] = set()
    model = VirtualModel(
        cost_s=lambda tokens, longest: 0.1 + 0.01 * tokens,
        fails=lambda batch: not poison.isdisjoint(batch),
    )
    answers: list[Logits | None] = [None] * len(crowd)
    left_at: dict[int, float] = {}

    async def call(queue: TokenBatcher, i: int) -> None:
        caller = crowd[i]
        await asyncio.sleep(caller.arrives)
        first = 1 + sum(map(len, marks.values()))
        marks[i] = range(first, first + len(caller.lengths))
        poison.update(mark for mark, bad in zip(marks[i], caller.poison, strict=True) if bad)
        batch = texts(*caller.lengths, mark=first)
        left = np.full(len(batch), caller.timeout_s, np.float32)
        try:
            async with asyncio.timeout(caller.leaves_after):
                answers[i] = await queue.submit(batch, left)
        except TimeoutError:
            left_at[i] = asyncio.get_running_loop().time()

    async def reconfigure(queue: TokenBatcher) -> None:
        for at, budget in sorted(budgets):
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            queue.max_batch_tokens = budget

    async def main() -> int:
        queue = model.batcher(max_batch_tokens=budgets[0][1], target_p99_ms=target_p99_ms)
        await asyncio.gather(reconfigure(queue), *(call(queue, i) for i in range(len(crowd))))
        return queue.queued_tokens

    assert run_virtually(main()) == 0

    owner = {mark: i for i, own in marks.items() for mark in own}
    first_run: dict[int, float] = {}
    for forward in model.passes:
        # Never over budget, except a lone long text.
        assert len(forward.lengths) == 1 or sum(forward.lengths) <= max(b for _, b in budgets)
        for mark in forward.marks:
            i = owner[mark]
            first_run.setdefault(mark, forward.started)
            # Neither expired nor abandoned work is run, not even to find a text at fault.
            assert forward.started <= crowd[i].arrives + crowd[i].timeout_s + 1e-6
            assert forward.started <= left_at.get(i, np.inf)
    # Oldest first.
    ran = sorted(first_run, key=lambda mark: first_run[mark])
    assert [first_run[mark] for mark in sorted(ran)] == [first_run[mark] for mark in ran]

    for i, caller in enumerate(crowd):
        answer = answers[i]
        if answer is None:  # only those who left go without
            assert i in left_at
            continue
        for index, mark in enumerate(marks[i]):
            error = (answer.errors or {}).get(index)
            if isinstance(error, DeadlineExceeded):
                assert caller.timeout_s < 100
            elif mark in poison:
                assert isinstance(error, PredictionFailed)
            else:  # the neighbours of a bad text are answered, and with their own row
                assert error is None
                assert answer.values[index, 0] == mark

    # No idle model while work waits: between two passes there is a gap only where all who had come
    # were answered, gone, or out of time.
    for before, after in zip(model.passes, model.passes[1:], strict=False):
        if after.started > before.ended + 1e-6:
            assert min(crowd[owner[mark]].arrives for mark in after.marks) > before.ended - 1e-6


def test_a_thousand_requests_a_second_on_a_50_ms_model_wait_one_or_two_passes() -> None:
    """`@serve.batch` forms batches before the model is free: p50 1.5 s under the same load."""
    model = VirtualModel(cost_s=lambda tokens, longest: 0.05)
    waits: list[float] = []

    async def call(queue: TokenBatcher, at: float) -> None:
        await asyncio.sleep(at)
        await queue.submit(texts(20), plenty(texts(20)))
        waits.append(asyncio.get_running_loop().time() - at)

    async def main() -> None:
        queue = model.batcher()
        await asyncio.gather(*(call(queue, i / 1_000) for i in range(10_000)))

    run_virtually(main())
    assert 0.05 <= np.percentile(waits, 50) <= 0.1
    assert max(waits) <= 0.101
    assert 45 <= np.mean([len(p.lengths) for p in model.passes]) <= 55


def test_a_long_text_does_not_starve_behind_a_stream_of_short_ones() -> None:
    model = VirtualModel(cost_s=lambda tokens, longest: 0.01)

    async def main() -> float:
        queue = model.batcher(max_batch_tokens=100)

        async def short(at: float) -> None:
            await asyncio.sleep(at)
            await queue.submit(texts(10), plenty(texts(10)))

        async def long() -> float:
            await asyncio.sleep(0.5)
            await queue.submit(texts(95, mark=7), plenty(texts(95)))
            return asyncio.get_running_loop().time() - 0.5

        _, waited = await asyncio.gather(
            asyncio.gather(*(short(i / 950) for i in range(950))), long()
        )
        return waited

    assert run_virtually(main()) < 0.05


@pytest.mark.parametrize("n_texts", [1, 2, 15, 16, 17, 500])
def test_a_dead_model_is_asked_31_times_a_batch_at_most(n_texts: int) -> None:
    model = VirtualModel(cost_s=lambda tokens, longest: 0.001, fails=lambda marks: True)

    async def main() -> Logits:
        queue = model.batcher()
        batch = texts(*[5] * n_texts)
        logits = await queue.submit(batch, plenty(batch))
        assert queue.failed_batches == 1
        return logits

    assert len(run_virtually(main()).errors or {}) == n_texts
    assert len(model.passes) <= min(2 * n_texts - 1, MAX_FAILURES)


@given(bad=st.sets(st.integers(1, 200), max_size=15))
@settings(max_examples=30, deadline=None)
def test_exactly_the_bad_texts_fail_wherever_fifteen_of_them_stand(bad: set[int]) -> None:
    model = VirtualModel(
        cost_s=lambda tokens, longest: 0.001, fails=lambda marks: not bad.isdisjoint(marks)
    )

    async def main() -> Logits:
        batch = texts(*[5] * 200)
        return await model.batcher().submit(batch, plenty(batch))

    logits = run_virtually(main())
    assert {index + 1 for index in logits.errors or {}} == bad
    good = [i for i in range(200) if i + 1 not in bad]
    assert logits.values[good, 0].tolist() == [i + 1 for i in good]
    assert len(model.passes) <= 1 + len(bad) * 2 * 8


class Panic(BaseException):
    """As a panic in Rust reaches Python."""


TROUBLES = [
    Panic(),
    KeyboardInterrupt(),
    SystemExit(1),
    StopIteration(),
    GeneratorExit(),
    asyncio.CancelledError(),
    MemoryError(),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda exc: type(exc).__name__)
def test_the_loop_outlives_whatever_an_engine_raises(trouble: BaseException) -> None:
    """In a real thread: some of these end an ordinary task, or leave it waiting for ever."""

    def predict(batch: Encoded) -> Logits:
        if 3 in batch.lengths:
            raise trouble
        return Logits(batch.lengths.astype(np.float32)[:, None])

    async def main() -> None:
        queue = TokenBatcher(predict, max_batch_tokens=100, max_queue_tokens=100)
        for _ in range(2):
            logits = await asyncio.wait_for(queue.submit(texts(2, 3, 4), plenty(texts(2, 3, 4))), 9)
            assert list(logits.errors or {}) == [1]
            assert logits.values[[0, 2], 0].tolist() == [2, 4]

    asyncio.run(main())


ODD_ANSWERS = {
    "no Logits": None,
    "one dimension": Logits(np.ones(1, np.float32)),
    "three dimensions": Logits(np.ones((1, 1, 1), np.float32)),
    "no array": Logits("logits"),  # type: ignore[arg-type]
    "no dict of errors": Logits(np.ones((1, 1), np.float32), 5),  # type: ignore[arg-type]
    "another number of labels": Logits(np.ones((1, 2), np.float32)),
}


@pytest.mark.parametrize("odd", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_the_loop_outlives_an_answer_of_any_shape(odd: Logits) -> None:
    def predict(batch: Encoded) -> Logits:
        return odd if 3 in batch.lengths else Logits(batch.lengths.astype(np.float32)[:, None])

    async def main() -> None:
        queue = TokenBatcher(predict, max_batch_tokens=5, max_queue_tokens=100)
        logits = await asyncio.wait_for(queue.submit(texts(4, 3, 2), plenty(texts(4, 3, 2))), 9)
        assert list(logits.errors or {}) == [1]
        assert logits.values[[0, 2], 0].tolist() == [4, 2]

    asyncio.run(main())


def test_the_loop_outlives_a_thread_that_cannot_be_had() -> None:
    model = VirtualModel(cost_s=lambda tokens, longest: 0.01)

    async def main() -> tuple[Logits, Logits]:
        queue = model.batcher()
        works = queue._run

        async def refuse(*args: object) -> None:
            raise RuntimeError("can't start new thread")

        queue._run = refuse
        failed = await queue.submit(texts(5), plenty(texts(5)))
        queue._run = works
        return failed, await queue.submit(texts(5, mark=6), plenty(texts(5)))

    failed, answered = run_virtually(main())
    assert isinstance((failed.errors or {})[0], PredictionFailed)
    assert answered.values[0, 0] == 6


def test_callers_are_answered_although_somebody_cancels_the_loops_own_task() -> None:
    model = VirtualModel(cost_s=lambda tokens, longest: 0.1)

    async def main() -> list[Logits]:
        queue = model.batcher(max_batch_tokens=10)
        calls = [
            asyncio.create_task(queue.submit(texts(8, mark=m), plenty(texts(8)))) for m in (1, 2)
        ]
        await asyncio.sleep(0.05)
        assert queue._loop_task is not None
        queue._loop_task.cancel()
        return await asyncio.gather(*calls)

    assert [logits.values[0, 0] for logits in run_virtually(main())] == [1, 2]


def test_rows_stay_right_where_an_engine_writes_every_batch_into_the_same_memory() -> None:
    memory = np.zeros((8, 1), np.float32)

    def predict(batch: Encoded) -> Logits:
        memory[: len(batch), 0] = batch.lengths
        return Logits(memory[: len(batch)])

    async def main() -> Logits:
        queue = TokenBatcher(predict, max_batch_tokens=10, max_queue_tokens=100)
        return await queue.submit(texts(4, 6, 7, 2), plenty(texts(4, 6, 7, 2)))

    assert asyncio.run(main()).values[:, 0].tolist() == [4, 6, 7, 2]


def test_leavers_give_their_memory_back_while_the_model_hangs() -> None:
    model = VirtualModel(cost_s=lambda tokens, longest: 1e6)

    async def main() -> int:
        queue = model.batcher()
        staying = []
        for _ in range(10):
            staying.append(asyncio.create_task(queue.submit(texts(5), plenty(texts(5)))))
            await asyncio.sleep(0.001)
        for _ in range(200):
            leaving = asyncio.create_task(queue.submit(texts(5), plenty(texts(5))))
            await asyncio.sleep(0.001)
            leaving.cancel()
        await asyncio.sleep(0)
        held = len(queue._queue._slices)
        assert queue.queued_tokens == 45
        for task in staying:
            task.cancel()
        return held

    assert run_virtually(main()) <= 20
