"""Ingress and classifier together, far beyond their capacity, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from virtual_time import VirtualModel, after, ingress, run_virtually, texts

from deployments.pipeline.errors import DeadlineExceeded, Overloaded, ServiceError, TextTooLong
from deployments.pipeline.gate import Gate
from deployments.pipeline.microbatch import Result
from deployments.pipeline.types import Load, Options, Priority, TextInput, flow_of, runs_of

TOKENS_PER_S = 1_000.0
TOKENS = 50
CAPACITY_PER_S = TOKENS_PER_S / TOKENS
TIMEOUT_S = 30.0
MAX_QUEUE_S = 10.0
TOO_LONG = TextInput("x" * 3_000, options=Options(truncation=False))
REFUSAL_S = 0.002


@dataclass
class Asked:
    """One request and what became of it."""

    at: float
    client: str = ""
    priority: Priority = "interactive"
    outcome: str = ""
    latency_s: float = 0.0
    retry_after_s: float = 0.0


@dataclass
class Service:
    """The ingress before a model that reads TOKENS_PER_S, and all that was asked of it."""

    model: VirtualModel = field(
        default_factory=lambda: VirtualModel(lambda tokens, longest: 0.01 + tokens / TOKENS_PER_S)
    )
    asked: list[Asked] = field(default_factory=list)
    timed: Sequence[tuple[int, int]] = ((1_000, TOKENS),)  # passes before the first request

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.batcher = self.model.batcher(max_batch_tokens=1_000)
        self.gate = Gate(2_000, MAX_QUEUE_S, loop.time)
        for tokens, longest in self.timed:
            self.batcher.observe(tokens, longest, self.model.cost_s(tokens, longest))
        self.ingress = ingress(self._run, self.gate)
        self.tasks: list[asyncio.Task[None]] = []

    async def _run(self, inputs: Sequence[TextInput], deadlines: Sequence[float]) -> list[Result]:
        results: list[Result] = [TextTooLong("too long")] * len(inputs)
        good = [i for i, item in enumerate(inputs) if item is not TOO_LONG]
        await asyncio.sleep(REFUSAL_S * (len(inputs) - len(good)))
        if good:
            batch = texts(*(len(inputs[i].text) for i in good))
            flows = runs_of([inputs[i].flow for i in good])
            now = asyncio.get_running_loop().time()
            left_s = np.asarray([deadlines[i] - now for i in good], np.float32)
            logits = await self.batcher.submit(batch, left_s, flows)
            self.gate.heard(Load("one", self.batcher.tokens_per_s, self.batcher.queued_tokens))
            errors = logits.errors or {}
            for k, i in enumerate(good):
                results[i] = errors.get(k) or {"label": str(k), "tokens": int(batch.lengths[k])}
        return results

    def ask(
        self,
        client: str = "",
        priority: Priority = "interactive",
        n_texts: int = 1,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        one = Asked(asyncio.get_running_loop().time(), client, priority)
        self.asked.append(one)
        self.tasks.append(asyncio.create_task(self._ask(one, n_texts, timeout_s)))

    async def _ask(self, one: Asked, n_texts: int, timeout_s: float) -> None:
        item = TextInput("x" * TOKENS, flow=flow_of(one.priority, one.client, n_texts))
        try:
            results = await self.ingress.submit([item] * n_texts, after(timeout_s))
            failed = [r for r in results if isinstance(r, ServiceError)]
            one.outcome = failed[0].code if failed else "ok"
        except (Overloaded, DeadlineExceeded) as exc:
            one.outcome = exc.code
            one.retry_after_s = getattr(exc, "retry_after_s", 0.0)
        one.latency_s = asyncio.get_running_loop().time() - one.at

    async def offer(self, rate_per_s: float, seconds: float, seed: int = 0, **how: Any) -> None:
        """Asks at the times of a Poisson process."""
        loop = asyncio.get_running_loop()
        begun, rng = loop.time(), np.random.default_rng(seed)
        for at in itertools.accumulate(rng.exponential(1 / rate_per_s, int(rate_per_s * seconds))):
            await asyncio.sleep(max(0.0, begun + at - loop.time()))
            self.ask(**how)

    async def answered(self) -> list[Asked]:
        await asyncio.gather(*self.tasks)
        return self.asked


def overload(factor: float, seconds: float = 60.0) -> list[Asked]:
    async def main() -> list[Asked]:
        service = Service()
        await service.offer(factor * CAPACITY_PER_S, seconds)
        return await service.answered()

    return run_virtually(main())


def good(asked: list[Asked]) -> list[Asked]:
    return [one for one in asked if one.outcome == "ok"]


@pytest.mark.parametrize("factor", [2, 5, 20])
def test_the_model_keeps_working_at_its_best_however_much_is_offered(factor: float) -> None:
    asked = overload(factor)
    outcomes = Counter(one.outcome for one in asked)
    assert set(outcomes) <= {"ok", "overloaded"}  # nobody is kept waiting only to be told 408
    assert outcomes["ok"] >= 0.9 * CAPACITY_PER_S * 60
    latencies = np.asarray([one.latency_s for one in good(asked)])
    assert np.quantile(latencies, 0.99) <= 1.2 * MAX_QUEUE_S
    refused = [one for one in asked if one.outcome == "overloaded"]
    assert max(one.latency_s for one in refused) == 0.0
    assert all(0 < one.retry_after_s <= 60 for one in refused)


def test_what_fits_is_never_refused() -> None:
    assert {one.outcome for one in overload(0.8)} == {"ok"}


def test_a_burst_that_can_be_answered_in_time_is_taken_in_whole() -> None:
    async def main() -> list[Asked]:
        service = Service()
        await service.offer(2.0, 20.0)  # one at a time: tells little about the model's best
        for _ in range(int(0.8 * MAX_QUEUE_S * CAPACITY_PER_S)):
            service.ask()
        return await service.answered()

    assert {one.outcome for one in run_virtually(main())} == {"ok"}


def test_a_new_replica_takes_in_what_it_can_answer() -> None:
    """All that it knows of its speed are the passes that it timed at its start."""

    async def main() -> list[Asked]:
        loop = asyncio.get_running_loop()
        model = VirtualModel(lambda tokens, longest: 0.2 + tokens / TOKENS_PER_S)
        service = Service(model, timed=((8, 8), (512, 64)))

        async def caller() -> None:
            while loop.time() < 60.0:
                service.ask(n_texts=20)
                await asyncio.gather(service.tasks[-1], asyncio.sleep(0.1))

        await asyncio.gather(*[caller() for _ in range(6)])
        return await service.answered()

    assert {one.outcome for one in run_virtually(main())} == {"ok"}


def test_after_an_overload_latency_is_normal_again_within_the_longest_wait() -> None:
    async def main() -> list[Asked]:
        service = Service()
        await service.offer(20 * CAPACITY_PER_S, 20.0)
        await asyncio.sleep(1.2 * MAX_QUEUE_S)
        ended = asyncio.get_running_loop().time()
        await service.offer(0.3 * CAPACITY_PER_S, 20.0, seed=1)
        return [one for one in await service.answered() if one.at >= ended]

    after = run_virtually(main())
    assert {one.outcome for one in after} == {"ok"}
    assert np.quantile([one.latency_s for one in after], 0.9) < 0.5


def test_one_clients_flood_is_its_own_affair() -> None:
    async def main() -> list[Asked]:
        service = Service()
        flood = asyncio.create_task(
            service.offer(20 * CAPACITY_PER_S, 60.0, client="flood", seed=1)
        )
        await asyncio.sleep(10)
        await service.offer(0.2 * CAPACITY_PER_S, 40.0, client="guest", seed=2)
        await flood
        return await service.answered()

    asked = run_virtually(main())
    guest = [one for one in asked if one.client == "guest"]
    assert {one.outcome for one in guest} == {"ok"}
    # A pass is under way when it comes, and its own follows.
    assert np.quantile([one.latency_s for one in guest], 0.99) < 3.0
    assert len(good(asked)) >= 0.9 * CAPACITY_PER_S * 60


@pytest.mark.parametrize(("away_s", "least"), [(5.0, 1.0), (10.0, 0.95)])
def test_while_the_model_is_away_callers_wait_and_are_not_refused(
    away_s: float, least: float
) -> None:
    """As all its replicas have died, and others come up."""

    async def main() -> list[Asked]:
        loop = asyncio.get_running_loop()
        service = Service()
        inner = service.batcher.submit

        async def submit(*call: Any) -> Any:
            if 10.0 <= loop.time() < 10.0 + away_s:
                await asyncio.sleep(10.0 + away_s - loop.time())
            return await inner(*call)

        service.batcher.submit = submit  # type: ignore[method-assign]
        await service.offer(0.3 * CAPACITY_PER_S, 40.0)
        return await service.answered()

    asked = run_virtually(main())
    assert {one.outcome for one in asked} <= {"ok", "overloaded"}
    assert len(good(asked)) >= least * len(asked)


@pytest.mark.parametrize(("factor", "least"), [(0.1, 1.0), (0.5, 1.0), (3.0, 0.27)])
def test_texts_that_are_refused_make_nobody_else_look_slow_or_fast(
    factor: float, least: float
) -> None:
    """Ten callers send nothing but texts that are too long, each as soon as it has its answer."""

    async def main() -> tuple[list[Asked], int]:
        loop = asyncio.get_running_loop()
        service = Service()
        refused = 0

        async def too_long() -> None:
            nonlocal refused
            while loop.time() < 60.0:
                try:
                    await service.ingress.submit([TOO_LONG], after(TIMEOUT_S))
                    refused += 1
                except Overloaded:
                    await asyncio.sleep(0.05)

        offered = service.offer(factor * CAPACITY_PER_S, 60.0)
        await asyncio.gather(offered, *[too_long() for _ in range(10)])
        return await service.answered(), refused

    asked, refused = run_virtually(main())
    outcomes = Counter(one.outcome for one in asked)
    assert outcomes.keys() <= ({"ok"} if least == 1.0 else {"ok", "overloaded"})
    assert outcomes["ok"] >= least * len(asked)
    assert refused > 100


def test_bulk_does_not_wait_for_ever_where_it_does_not_fit_beside_the_next() -> None:
    """Each pass has room for one text, and an interactive one always waits."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        batcher = VirtualModel(lambda tokens, longest: 0.1).batcher(max_batch_tokens=512)
        done = 0

        async def bulk(number: int) -> None:
            nonlocal done
            flow = flow_of("bulk", "b", number + 2)
            await batcher.submit(texts(300), np.full(1, 600, np.float32), [(flow, 1)])
            done += loop.time() < 60.0

        async def interactive() -> None:
            while loop.time() < 60.0:
                await batcher.submit(texts(300), np.full(1, 30, np.float32))
                await asyncio.sleep(0.001)

        await asyncio.gather(interactive(), interactive(), *[bulk(n) for n in range(5)])
        return done

    assert run_virtually(main()) == 5


def test_bulk_neither_stands_in_the_way_nor_stands_still() -> None:
    async def main() -> list[Asked]:
        service = Service()
        for _ in range(4):
            service.ask(priority="bulk", n_texts=40)
        await asyncio.sleep(1)
        await service.offer(0.5 * CAPACITY_PER_S, 20.0)
        return await service.answered()

    asked = run_virtually(main())
    interactive = [one for one in asked if one.priority == "interactive"]
    bulk = [one for one in asked if one.priority == "bulk"]
    assert {one.outcome for one in asked} == {"ok"}
    assert np.quantile([one.latency_s for one in interactive], 0.9) < 3.0
    assert max(one.latency_s for one in bulk) < 20.0

    async def crowded() -> list[Asked]:
        service = Service()
        crowd = asyncio.create_task(service.offer(5 * CAPACITY_PER_S, 30.0))
        await asyncio.sleep(5)
        service.ask(priority="bulk", n_texts=40)
        await crowd
        return await service.answered()

    # Its tenth of the model: 40 texts in 20 s, beside a crowd that would take everything.
    (one,) = (one for one in run_virtually(crowded()) if one.priority == "bulk")
    assert one.outcome == "ok"
    assert 10 < one.latency_s < 25


def test_a_short_list_does_not_wait_for_a_long_one() -> None:
    async def main() -> list[Asked]:
        service = Service()
        service.ask(priority="bulk", n_texts=400)
        await asyncio.sleep(0.1)
        service.ask(priority="bulk", n_texts=40)
        return await service.answered()

    long, short = run_virtually(main())
    assert short.latency_s < 6.0 < 15.0 < long.latency_s


def test_a_request_with_little_time_is_told_at_once_or_in_time() -> None:
    async def main() -> list[Asked]:
        service = Service()
        await service.offer(5 * CAPACITY_PER_S, 20.0)
        begun = asyncio.get_running_loop().time()
        await service.offer(CAPACITY_PER_S, 5.0, timeout_s=0.5)
        return [one for one in await service.answered() if one.at >= begun]

    hasty = run_virtually(main())
    assert max(one.latency_s for one in hasty) <= 0.5 + 1e-6
    assert Counter(one.outcome for one in hasty)["overloaded"] > 0.8 * len(hasty)


def test_expired_work_is_never_run() -> None:
    async def main() -> tuple[list[Asked], int]:
        service = Service()
        service.ask(n_texts=30)
        await asyncio.sleep(0.05)
        service.ask(timeout_s=0.9)  # nothing is known yet: taken in, and late
        asked = await service.answered()
        return asked, sum(len(one.lengths) for one in service.model.passes)

    (first, late), ran = run_virtually(main())
    assert (first.outcome, late.outcome, ran) == ("ok", "deadline_exceeded", 30)
