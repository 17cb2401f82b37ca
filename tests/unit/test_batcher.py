"""The classifier's queue: budget, order, deadlines, cancellation, and faults of the model."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from deployments.core.batcher import TokenBatcher
from deployments.core.errors import DeadlineExceeded, Overloaded, PredictionFailed
from deployments.core.types import Encoded, Logits

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
