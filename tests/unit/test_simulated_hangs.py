"""Replicas whose model hangs with one text, and what becomes of all the others; in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from virtual_time import VirtualModel, after, judged, run_virtually, texts

from deployments.pipeline.errors import PredictionFailed, ServiceError
from deployments.pipeline.health import ModelHealth
from deployments.pipeline.quarantine import Quarantine
from deployments.pipeline.retry import Attempts, LostReplica, RetryBudget
from deployments.pipeline.types import Deadlines, Encoded, Logits

POISON = 7
LOAD_S = 6.0
TIMEOUT_S = 30.0


# Calls under way, as the ingress limits them.
IN_FLIGHT = 64


class Replica:
    """A queue, a model that hangs with one text, and the watch that ends it."""

    def __init__(self, max_pass_s: float, pass_s: float) -> None:
        model = VirtualModel(lambda tokens, longest: pass_s, hangs=lambda marks: POISON in marks)
        self.queue = model.batcher()
        self.under_way = 0
        self.lost = asyncio.get_running_loop().create_future()
        self.frozen = False
        health = ModelHealth(self.queue, max_pass_s)
        self._watch = asyncio.create_task(health.watch(lambda: self.lost.set_result(None)))

    async def predict(self, batch: Encoded, deadlines: Deadlines, *how: Any) -> Logits:
        if self.frozen:
            await asyncio.Event().wait()
        timeouts_s = (deadlines - asyncio.get_running_loop().time()).astype(np.float32)
        call = asyncio.create_task(self.queue.submit(batch, timeouts_s, *how))
        try:
            await asyncio.wait([call, self.lost], return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise LostReplica
            return call.result()
        finally:
            call.cancel()


class Cluster:
    """Replicas that are replaced when they end; each call goes to the one with the fewest."""

    def __init__(self, n_replicas: int, max_pass_s: float, pass_s: float) -> None:
        self.deaths = 0
        self._some = asyncio.Event()
        self._some.set()
        self._shape = max_pass_s, pass_s
        self.replicas = [Replica(*self._shape) for _ in range(n_replicas)]
        self._tasks = [asyncio.create_task(self._replace(replica)) for replica in self.replicas]

    async def _replace(self, replica: Replica) -> None:
        await replica.lost
        self.deaths += 1
        self.replicas.remove(replica)
        if not self.replicas:
            self._some.clear()
        await asyncio.sleep(LOAD_S)
        self.replicas.append(Replica(*self._shape))
        self._some.set()
        self._tasks.append(asyncio.create_task(self._replace(self.replicas[-1])))

    async def predict(self, batch: Encoded, deadlines: Deadlines, *how: Any) -> Logits:
        await self._some.wait()
        chosen = min(self.replicas, key=lambda replica: replica.under_way)
        chosen.under_way += 1
        try:
            return await chosen.predict(batch, deadlines, *how)
        finally:
            chosen.under_way -= 1

    async def holding(self) -> set[int]:
        if any(replica.frozen for replica in self.replicas):
            return set()  # one that does not answer spoils the question
        return {call_id for replica in self.replicas for call_id in replica.queue.holding()}


def quarantine_of(cluster: Cluster) -> Quarantine:
    attempts = Attempts(RetryBudget(IN_FLIGHT), RetryBudget(IN_FLIGHT))
    return Quarantine(cluster.predict, attempts, cluster.holding)


async def in_turn(free: asyncio.Semaphore, quarantine: Quarantine, batch: Encoded) -> list[str]:
    asked_s = asyncio.get_running_loop().time()
    async with free:
        return await outcome(
            quarantine, batch, TIMEOUT_S - (asyncio.get_running_loop().time() - asked_s)
        )


async def outcome(
    quarantine: Quarantine, batch: Encoded, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """What became of each text: right, wrong, or the kind of its error."""
    marks = batch.input_ids[np.cumsum(batch.lengths) - batch.lengths]
    try:
        predicted = await quarantine.predict(batch, np.full(len(batch), after(timeout_s)))
    except ServiceError as exc:
        return [type(exc).__name__] * len(batch)
    return [
        told.__name__ if isinstance(told, type) else ("right" if told == mark else "wrong")
        for told, mark in zip(judged(predicted), marks.tolist(), strict=True)
    ]


@pytest.mark.parametrize("pass_s", [0.005, 0.05])
@pytest.mark.parametrize("n_texts", [1, 8])
@pytest.mark.parametrize(
    # 60 s is more than anybody may wait, but these passes are known to be quick. A lone replica is
    # loaded twice meanwhile, for which there must be time.
    ("n_replicas", "max_pass_s"),
    [(1, 5.0), (2, 5.0), (2, 60.0), (3, 60.0)],
)
def test_a_text_that_hangs_the_model_fails_alone(
    n_replicas: int, n_texts: int, pass_s: float, max_pass_s: float
) -> None:
    """30 calls a second, at replicas that load in 6 s."""

    async def main() -> None:
        cluster = Cluster(n_replicas, max_pass_s, pass_s)
        quarantine = quarantine_of(cluster)
        free = asyncio.Semaphore(IN_FLIGHT)
        calls = []
        for number in range(900):
            mark = POISON - n_texts // 2 if number == 150 else 1_000 + number * n_texts
            batch = texts(*[5] * n_texts, mark=mark)
            calls.append(asyncio.create_task(in_turn(free, quarantine, batch)))
            await asyncio.sleep(1 / 30)
        told = await asyncio.gather(*calls)
        at_fault = told[150].pop(n_texts // 2)
        assert at_fault == PredictionFailed.__name__
        assert set(Counter(one for call in told for one in call)) == {"right"}
        assert cluster.deaths <= 2
        assert await outcome(quarantine, texts(5, mark=POISON)) == [PredictionFailed.__name__]

    run_virtually(main())


def test_a_frozen_replica_costs_nobody_an_answer() -> None:
    async def main() -> None:
        cluster = Cluster(2, 60.0, 0.02)
        quarantine = quarantine_of(cluster)
        free = asyncio.Semaphore(IN_FLIGHT)
        calls = []
        for number in range(600):
            if number == 60:
                cluster.replicas[0].frozen = True
            batch = texts(5, mark=1_000 + number)
            calls.append(asyncio.create_task(in_turn(free, quarantine, batch)))
            await asyncio.sleep(1 / 30)
        told = await asyncio.gather(*calls)
        assert Counter(one for call in told for one in call) == {"right": 600}

    run_virtually(main())


def test_no_work_is_done_twice_because_a_queue_is_long() -> None:
    """Two bursts of 2,000 texts at one Classifier, which takes some seconds for each."""

    async def main() -> None:
        cluster = Cluster(1, 60.0, 0.05)
        (replica,) = cluster.replicas
        quarantine = quarantine_of(cluster)
        asked = 0

        async def counted(*call: Any) -> Logits:
            nonlocal asked
            asked += 1
            return await Replica.predict(replica, *call)

        replica.predict = counted  # type: ignore[method-assign]
        for burst in range(2):
            calls = [
                outcome(quarantine, texts(*[200] * 100, mark=1_000 + 100 * (20 * burst + number)))
                for number in range(20)
            ]
            told = await asyncio.gather(*calls)
            assert Counter(one for call in told for one in call) == {"right": 2_000}
        assert asked == 40

    run_virtually(main())
