"""The classifier's queue: budget, order, deadlines, cancellation, and faults of the model."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.pipeline.batcher import TokenBatcher
from deployments.pipeline.errors import DeadlineExceeded, Overloaded, PredictionFailed
from deployments.pipeline.types import Encoded, Logits

pytestmark = pytest.mark.anyio

POISON = 13


def texts(*lengths: int) -> Encoded:
    """Texts whose every token is the text's own length."""
    ids = np.concatenate([np.full(n, n, np.int32) for n in lengths])
    return Encoded(ids, np.asarray(lengths, np.int32))


def plenty(batch: Encoded) -> np.ndarray:
    return np.full(len(batch), 60.0, np.float32)


class CountingModel:
    """A text's logit is its token count. Holds every batch until `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    async def hold(self, queue: TokenBatcher) -> asyncio.Task[Logits]:
        """Closes the gate and waits until a first text, of one token, stands before it."""
        self.gate.clear()
        first = asyncio.create_task(queue.submit(texts(1), plenty(texts(1))))
        assert await asyncio.to_thread(self.started.wait, 10)
        return first

    def __call__(self, batch: Encoded) -> Logits:
        self.batches.append(batch.lengths.tolist())
        self.started.set()
        assert self.gate.wait(10)
        if POISON in batch.lengths:
            raise RuntimeError("a secret text")
        return Logits(batch.lengths.astype(np.float32)[:, None])


def batcher(
    model: CountingModel, max_batch_tokens: int = 100, max_queue_tokens: int = 10_000
) -> TokenBatcher:
    return TokenBatcher(model, max_batch_tokens=max_batch_tokens, max_queue_tokens=max_queue_tokens)


async def submit_while_busy(
    queue: TokenBatcher, model: CountingModel, *batches: Encoded
) -> list[Logits]:
    """Submits all batches while the model is held by a first text, then lets it go."""
    first = await model.hold(queue)
    rest = [asyncio.create_task(queue.submit(batch, plenty(batch))) for batch in batches]
    await asyncio.sleep(0)
    model.gate.set()
    await first
    return await asyncio.gather(*rest)


async def test_a_call_that_is_to_be_alone_shares_no_pass() -> None:
    model = CountingModel()
    queue = batcher(model)
    first = await model.hold(queue)
    calls = [
        asyncio.create_task(queue.submit(texts(*lengths), plenty(texts(*lengths)), None, alone))
        for lengths, alone in [((2, 3), False), ((4, 5), True), ((6,), True), ((7,), False)]
    ]
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(first, *calls)
    assert model.batches == [[1], [2, 3], [4, 5], [6], [7]]


async def test_every_text_gets_its_own_logit_in_order() -> None:
    model = CountingModel()
    logits = await batcher(model, max_batch_tokens=20).submit(
        texts(5, 19, 2, 7), plenty(texts(5, 19, 2, 7))
    )
    assert logits.values[:, 0].tolist() == [5, 19, 2, 7]


async def test_callers_are_merged_into_one_batch_when_the_model_frees() -> None:
    model = CountingModel()
    answers = await submit_while_busy(batcher(model), model, texts(3, 4), texts(5), texts(6, 7, 8))
    assert model.batches == [[1], [3, 4, 5, 6, 7, 8]]
    assert [a.values[:, 0].tolist() for a in answers] == [[3, 4], [5], [6, 7, 8]]


async def test_no_batch_is_over_budget_except_a_lone_long_text() -> None:
    model = CountingModel()
    await submit_while_busy(batcher(model, max_batch_tokens=10), model, texts(4, 5, 6, 50, 3))
    assert model.batches == [[1], [4, 5], [6], [50], [3]]


async def test_oldest_first_even_where_a_younger_text_would_fit() -> None:
    model = CountingModel()
    await submit_while_busy(batcher(model, max_batch_tokens=10), model, texts(8, 9, 1))
    assert model.batches == [[1], [8], [9, 1]]


async def test_the_budget_can_be_changed_while_texts_wait() -> None:
    model = CountingModel()
    queue = batcher(model, max_batch_tokens=5)
    queue.max_batch_tokens = 100
    await submit_while_busy(queue, model, texts(4, 5, 6))
    assert model.batches == [[1], [4, 5, 6]]


async def test_a_call_says_how_long_its_own_passes_took() -> None:
    model, passed = CountingModel(), [0.0]
    queue = TokenBatcher(model, max_batch_tokens=5, max_queue_tokens=100, clock=lambda: passed[0])

    async def slow(function, *args):
        await asyncio.sleep(0)
        passed[0] += 2.0
        return function(*args)

    queue._run = slow
    one, three = texts(5), texts(4, 5, 3)
    alone, in_parts = await asyncio.gather(
        queue.submit(one, plenty(one)), queue.submit(three, plenty(three))
    )
    assert model.batches == [[5], [4], [5], [3]]
    assert (alone.model_s, in_parts.model_s) == (2.0, 6.0)


async def test_a_poisonous_text_fails_alone() -> None:
    model = CountingModel()
    (logits,) = await submit_while_busy(batcher(model), model, texts(2, 3, POISON, 4, 5))
    assert list(logits.errors or {}) == [2]
    assert isinstance(logits.errors[2], PredictionFailed)
    assert "secret" not in logits.errors[2].message
    assert logits.values[[0, 1, 3, 4], 0].tolist() == [2, 3, 4, 5]


async def test_a_call_of_poison_only_answers_with_its_error() -> None:
    logits = await batcher(CountingModel()).submit(texts(POISON), plenty(texts(POISON)))
    assert len(logits) == 1
    assert isinstance(logits.errors[0], PredictionFailed)


async def test_nan_fails_its_own_text_only() -> None:
    def predict(batch: Encoded) -> Logits:
        values = batch.lengths.astype(np.float32)[:, None]
        values[batch.lengths == 3] = np.nan
        return Logits(values)

    queue = TokenBatcher(predict, max_batch_tokens=100, max_queue_tokens=100)
    logits = await queue.submit(texts(2, 3, 4), plenty(texts(2, 3, 4)))
    assert list(logits.errors or {}) == [1]
    assert logits.values[[0, 2], 0].tolist() == [2, 4]


async def test_a_cancelled_caller_is_never_run_and_harms_nobody() -> None:
    model = CountingModel()
    queue = batcher(model)
    first = await model.hold(queue)
    leaving = asyncio.create_task(queue.submit(texts(7), plenty(texts(7))))
    staying = asyncio.create_task(queue.submit(texts(8), plenty(texts(8))))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    model.gate.set()
    assert (await staying).values[0, 0] == 8
    await first
    assert model.batches == [[1], [8]]
    assert queue.queued_tokens == 0


async def test_the_first_callers_cancellation_does_not_stop_the_loop() -> None:
    model = CountingModel()
    queue = batcher(model)
    first = await model.hold(queue)
    second = asyncio.create_task(queue.submit(texts(2), plenty(texts(2))))
    await asyncio.sleep(0)
    first.cancel()
    model.gate.set()
    assert (await second).values[0, 0] == 2


async def test_expired_texts_are_answered_and_never_run() -> None:
    model = CountingModel()
    queue = batcher(model)
    logits = await queue.submit(texts(4, 5), np.asarray([-1.0, 60.0], np.float32))
    assert isinstance((logits.errors or {})[0], DeadlineExceeded)
    assert logits.values[1, 0] == 5
    assert model.batches == [[5]]


async def test_a_full_queue_refuses_with_the_time_to_come_back() -> None:
    model = CountingModel()
    queue = batcher(model, max_queue_tokens=10)
    first = await model.hold(queue)
    waiting = asyncio.create_task(queue.submit(texts(9), plenty(texts(9))))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="9 tokens wait for the model; the limit is 10") as caught:
        await queue.submit(texts(2), plenty(texts(2)))
    assert caught.value.retry_after_s >= 1
    model.gate.set()
    await asyncio.gather(first, waiting)
    assert (await queue.submit(texts(2), plenty(texts(2)))).values[0, 0] == 2


async def test_a_cancelled_caller_makes_room_at_once() -> None:
    model = CountingModel()
    queue = batcher(model, max_queue_tokens=10)
    first = await model.hold(queue)
    leaving = asyncio.create_task(queue.submit(texts(4, 5), plenty(texts(4, 5))))
    await asyncio.sleep(0)
    assert queue.queued_tokens == 9
    leaving.cancel()
    await asyncio.wait([leaving])
    assert queue.queued_tokens == 0
    staying = asyncio.create_task(queue.submit(texts(8), plenty(texts(8))))
    await asyncio.sleep(0)
    model.gate.set()
    assert (await staying).values[0, 0] == 8
    await first


async def test_an_empty_call_is_answered() -> None:
    empty = Encoded(np.zeros(0, np.int32), np.zeros(0, np.int32))
    model = CountingModel()
    assert len(await batcher(model).submit(empty, np.zeros(0, np.float32))) == 0
    assert model.batches == []


async def test_a_call_with_too_few_timeouts_leaves_the_queue_as_it_was() -> None:
    model = CountingModel()
    queue = batcher(model)
    with pytest.raises(ValueError, match="1 timeouts for 2 texts"):
        await queue.submit(texts(4, 5), np.asarray([60.0], np.float32))
    assert (await queue.submit(texts(6), plenty(texts(6)))).values[0, 0] == 6
    assert model.batches == [[6]]
    assert queue.queued_tokens == 0


@pytest.mark.parametrize("rows", [0, 1, 5])
async def test_a_wrong_number_of_rows_fails_the_texts_and_answers_nobody_wrongly(
    rows: int,
) -> None:
    def predict(batch: Encoded) -> Logits:
        return Logits(np.ones((rows if len(batch) > 1 else 2, 2), np.float32))

    queue = TokenBatcher(predict, max_batch_tokens=100, max_queue_tokens=100)
    logits = await queue.submit(texts(2, 3, 4), plenty(texts(2, 3, 4)))
    assert sorted(logits.errors or {}) == [0, 1, 2]


async def test_a_panic_below_python_fails_its_own_text_only() -> None:
    """Rust's panics reach Python as a BaseException."""

    class Panic(BaseException):
        pass

    def predict(batch: Encoded) -> Logits:
        if POISON in batch.lengths:
            raise Panic
        return Logits(batch.lengths.astype(np.float32)[:, None])

    queue = TokenBatcher(predict, max_batch_tokens=100, max_queue_tokens=100)
    logits = await queue.submit(texts(2, POISON), plenty(texts(2, POISON)))
    assert list(logits.errors or {}) == [1]
    assert logits.values[0, 0] == 2


CALL = st.tuples(
    st.lists(st.integers(1, 20), min_size=1, max_size=6),  # lengths; 13 is poison
    st.sampled_from(["wait", "leave", "expire"]),
    st.integers(0, 3),  # turns of the loop before the next call
)


@given(calls=st.lists(CALL, min_size=1, max_size=12), budget=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_whatever_callers_do_everybody_is_answered_and_the_queue_ends_empty(
    calls: list[tuple[list[int], str, int]], budget: int
) -> None:
    model = CountingModel()

    async def simulate() -> None:
        queue = batcher(model, max_batch_tokens=budget)
        tasks = []
        for lengths, fate, turns in calls:
            left = plenty(texts(*lengths)) * (-1 if fate == "expire" else 1)
            tasks.append(asyncio.create_task(queue.submit(texts(*lengths), left)))
            for _ in range(turns):
                await asyncio.sleep(0)
            if fate == "leave":
                tasks[-1].cancel()
        await asyncio.wait(tasks, timeout=30)
        for (lengths, fate, _), task in zip(calls, tasks, strict=True):
            assert task.done()
            if task.cancelled():
                assert fate == "leave"
                continue
            for index, length in enumerate(lengths):
                error = (task.result().errors or {}).get(index)
                if fate == "expire":
                    assert isinstance(error, DeadlineExceeded)
                elif length == POISON:
                    assert isinstance(error, PredictionFailed)
                else:
                    assert error is None
                    assert task.result().values[index, 0] == length
        assert queue.queued_tokens == 0

    asyncio.run(simulate())
    for batch in model.batches:
        assert len(batch) == 1 or sum(batch) <= budget
