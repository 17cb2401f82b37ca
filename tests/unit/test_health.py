"""A model that hangs, fails or works, as its replica's health check sees it; in virtual time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from virtual_time import VirtualModel, run_virtually, texts

from deployments.pipeline.batcher import TokenBatcher
from deployments.pipeline.errors import PredictionFailed
from deployments.pipeline.health import MIN_HANGS_S, ModelHealth, ModelStalled
from deployments.pipeline.retry import Hung
from deployments.pipeline.types import Logits

MAX_PASS_S = 60.0
HANGS_S = 10_000.0


async def given(queue: TokenBatcher, mark: int) -> Logits:
    return await queue.submit(texts(5, mark=mark), np.asarray([30.0], np.float32))


async def left_alone(queue: TokenBatcher, mark: int) -> None:
    """A caller that waits for as long as it has time, and no longer."""
    try:
        async with asyncio.timeout(30.0):
            await given(queue, mark)
    except TimeoutError:
        pass


def test_an_idle_model_and_one_that_works_are_well() -> None:
    async def main() -> None:
        queue = VirtualModel(lambda tokens, longest: 20.0).batcher()
        health = ModelHealth(queue, MAX_PASS_S)
        await asyncio.sleep(1_000)
        await health.check()
        calls = [asyncio.create_task(left_alone(queue, 1)) for _ in range(9)]
        for _ in range(30):
            await asyncio.sleep(10.0)
            await health.check()
        await asyncio.gather(*calls)

    run_virtually(main())


def test_a_pass_that_does_not_end_is_found_by_its_age_though_its_callers_left() -> None:
    async def main() -> None:
        queue = VirtualModel(lambda tokens, longest: HANGS_S).batcher()
        health = ModelHealth(queue, MAX_PASS_S)
        await left_alone(queue, 1)
        assert asyncio.get_running_loop().time() == 30.0
        await health.check()
        await asyncio.sleep(31.0)
        with pytest.raises(ModelStalled, match="has run for 61 s, max_pass_s is 60"):
            await health.check()
        health.max_pass_s = 100.0
        await health.check()

    run_virtually(main())


def test_many_passes_of_one_batch_are_not_one_long_pass() -> None:
    """A batch in which texts fail is halved again and again; each pass is short."""

    async def main() -> None:
        model = VirtualModel(lambda tokens, longest: 10.0, fails=lambda marks: 7 in marks)
        queue = model.batcher()
        health = ModelHealth(queue, 15.0)
        batch = texts(*[5] * 16)
        call = asyncio.create_task(queue.submit(batch, np.full(16, 900.0, np.float32)))
        while not call.done():
            await asyncio.sleep(7.0)
            await health.check()
        assert list((await call).errors or {}) == [6]

    run_virtually(main())


def test_a_model_that_fails_on_every_text_is_ill() -> None:
    async def main() -> None:
        queue = VirtualModel(lambda tokens, longest: 0.1, fails=lambda marks: True).batcher()
        await given(queue, 1)
        with pytest.raises(PredictionFailed):
            await ModelHealth(queue, MAX_PASS_S).check()

    run_virtually(main())


def test_the_check_returns_though_its_own_probe_hangs() -> None:
    async def main() -> None:
        hangs = False
        model = VirtualModel(
            lambda tokens, longest: HANGS_S if hangs else 0.1, fails=lambda marks: not hangs
        )
        queue = model.batcher()
        health = ModelHealth(queue, MAX_PASS_S)
        await given(queue, 1)
        assert queue.failed_batches == 1
        hangs = True
        before = asyncio.get_running_loop().time()
        await health.check()
        assert asyncio.get_running_loop().time() == before + 5.0
        await asyncio.sleep(MAX_PASS_S)
        with pytest.raises(ModelStalled):
            await health.check()

    run_virtually(main())


async def ended_s(health: ModelHealth) -> float:
    """When the watch ended the process."""
    ended = asyncio.Event()
    watching = asyncio.create_task(health.watch(ended.set))
    await ended.wait()
    await watching
    return asyncio.get_running_loop().time()


def test_a_replica_whose_model_hangs_says_with_which_texts_and_ends() -> None:
    async def main() -> None:
        queue = VirtualModel(lambda tokens, longest: HANGS_S).batcher(max_batch_tokens=15)
        health = ModelHealth(queue, MAX_PASS_S)
        first = asyncio.create_task(queue.submit(texts(5), np.asarray([90.0], np.float32)))
        await asyncio.sleep(0)
        behind = asyncio.create_task(queue.submit(texts(5), np.asarray([90.0], np.float32)))
        end_s = await ended_s(health)
        assert MAX_PASS_S < end_s < MAX_PASS_S + 2.0
        with pytest.raises(Hung) as told:
            await first
        assert (told.value.suspects, told.value.n_texts) == ([0], 1)
        for innocent in (behind, given(queue, 1)):
            with pytest.raises(Hung) as told:
                await innocent
            assert list(told.value.suspects) == []

    run_virtually(main())


def test_of_each_call_the_texts_in_the_pass_are_suspects() -> None:
    async def main() -> None:
        queue = VirtualModel(lambda tokens, longest: HANGS_S).batcher(max_batch_tokens=20)
        calls = [
            asyncio.create_task(queue.submit(texts(*[5] * n), np.full(n, 90.0, np.float32)))
            for n in (1, 2, 3)
        ]
        await ended_s(ModelHealth(queue, 10.0))
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert [(list(t.suspects), t.n_texts) for t in told if isinstance(t, Hung)] == [
            ([0], 4),
            ([0, 1], 4),
            ([0], 4),
        ]

    run_virtually(main())


def test_where_passes_are_known_to_be_quick_one_hangs_earlier() -> None:
    costs = {5: 0.01, 50: 0.1}

    async def main() -> None:
        queue = VirtualModel(lambda tokens, longest: costs[tokens]).batcher()
        health = ModelHealth(queue, MAX_PASS_S)
        for _ in range(20):
            await given(queue, 1)
            await queue.submit(texts(*[5] * 10), np.full(10, 30.0, np.float32))
        costs[5] = HANGS_S
        started_s = asyncio.get_running_loop().time()
        asyncio.create_task(left_alone(queue, 1))  # noqa: RUF006
        assert MIN_HANGS_S < await ended_s(health) - started_s < MIN_HANGS_S + 2.0

    run_virtually(main())


def test_a_larger_pass_than_any_before_has_all_the_time() -> None:
    costs = {5: 0.01, 50: 40.0}

    async def main() -> None:
        queue = VirtualModel(lambda tokens, longest: costs[tokens]).batcher()
        health = ModelHealth(queue, MAX_PASS_S)
        watching = asyncio.create_task(health.watch(lambda: None))
        for _ in range(40):
            await given(queue, 1)
        await queue.submit(texts(*[5] * 10), np.full(10, 90.0, np.float32))
        assert not watching.done()
        watching.cancel()

    run_virtually(main())


def test_a_process_that_stood_still_did_not_hang() -> None:
    """Stopped for longer than a pass may take, with the pass on board; then it goes on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue = VirtualModel(lambda tokens, longest: 8.0).batcher()
        health = ModelHealth(queue, 10.0)
        watching = asyncio.create_task(health.watch(lambda: None))
        call = asyncio.create_task(given(queue, 1))
        await asyncio.sleep(4.0)
        loop._jump.now += 3_600.0  # type: ignore[attr-defined]
        assert (await call).errors is None
        await asyncio.sleep(20.0)
        assert not watching.done()
        watching.cancel()

    run_virtually(main())
