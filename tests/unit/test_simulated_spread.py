"""One ingress before several Classifiers, in virtual time: all of them work where one could not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from virtual_time import VirtualModel, after, ingress, run_virtually, texts

from deployments.pipeline.gate import CALL_S, Gate, work_of
from deployments.pipeline.microbatch import Result
from deployments.pipeline.types import Load, TextInput, flow_of, runs_of

TOKENS = 64
START_S, TOKENS_PER_S = 0.005, 20_000.0
FULL = 8_192
FULL_PER_S = FULL / (START_S + FULL / TOKENS_PER_S) / TOKENS
"""Texts a second of one Classifier whose passes are full."""
HOP_S = 0.002


class Service:
    """Calls go to the less loaded of two that are picked by chance, as Serve's router does."""

    def __init__(self, classifiers: int, tokens_per_s: float = TOKENS_PER_S) -> None:
        loop = asyncio.get_running_loop()
        self.models = [
            VirtualModel(lambda tokens, longest: START_S + tokens / tokens_per_s)
            for _ in range(classifiers)
        ]
        self._batchers = [
            model.batcher(max_batch_tokens=FULL, max_queue_tokens=10**9) for model in self.models
        ]
        for model, batcher in zip(self.models, self._batchers, strict=True):
            batcher.observe(FULL, TOKENS, model.cost_s(FULL, TOKENS))
        self._ongoing = [0] * classifiers
        self._random = random.Random(1)
        self.calls: list[int] = []
        """Texts of each."""
        self.gate = Gate(10**6, 1e6, loop.time)
        self.ingress = ingress(self._run, self.gate)

    async def meet(self) -> None:
        """Each Classifier is heard of, and what texts cost is known."""
        self.gate.capacity.answered(10_000 * work_of(TextInput("x" * TOKENS), 512), 10_000 * TOKENS)
        for i, batcher in enumerate(self._batchers):
            self.gate.heard(Load(str(i), batcher.tokens_per_s, 0))

    async def _run(self, inputs: Sequence[TextInput], deadlines: Sequence[float]) -> list[Result]:
        self.calls.append(len(inputs))
        picked = self._random.sample(range(len(self.models)), min(2, len(self.models)))
        chosen = min(picked, key=lambda i: self._ongoing[i])
        self._ongoing[chosen] += 1
        await asyncio.sleep(HOP_S)
        batcher = self._batchers[chosen]
        left_s = np.asarray(deadlines, np.float32) - asyncio.get_running_loop().time()
        await batcher.submit(
            texts(*(len(item.text) for item in inputs)),
            left_s.astype(np.float32),
            runs_of([item.flow for item in inputs]),
        )
        self._ongoing[chosen] -= 1
        self.gate.heard(Load(str(chosen), batcher.tokens_per_s, batcher.queued_tokens))
        return [{"label": "", "tokens": len(item.text)} for item in inputs]

    async def ask(self, n_texts: int) -> None:
        item = TextInput("x" * TOKENS, flow=flow_of("interactive", "", n_texts))
        await self.ingress.submit([item] * n_texts, after(1_000))


def answered_per_s(classifiers: int, callers: int, n_texts: int) -> float:
    """Texts, where callers ask again at once."""
    seconds = 20.0

    async def main() -> float:
        service, loop, done = Service(classifiers), asyncio.get_running_loop(), 0

        async def caller() -> None:
            nonlocal done
            while loop.time() < seconds:
                await service.ask(n_texts)
                done += n_texts if 5.0 < loop.time() < seconds else 0

        await asyncio.gather(*(caller() for _ in range(callers)))
        return done / (seconds - 5.0)

    return run_virtually(main())


@pytest.mark.parametrize("classifiers", [2, 4, 8])
@pytest.mark.parametrize(("callers_each", "n_texts"), [(64, 1), (2, 32), (8, 32), (2, 256)])
def test_callers_that_come_back_together_keep_every_classifier_busy(
    classifiers: int, callers_each: int, n_texts: int
) -> None:
    per_s = answered_per_s(classifiers, callers_each * classifiers, n_texts)
    assert per_s > 0.85 * classifiers * FULL_PER_S


def test_a_lone_list_is_read_by_all_classifiers_that_are_known() -> None:
    async def seconds(known: bool) -> float:
        service, loop = Service(4), asyncio.get_running_loop()
        if known:
            await service.meet()
        began = loop.time()
        await service.ask(256)
        assert sum(service.calls) == 256
        return loop.time() - began

    # Of four calls to the less loaded of two, two may meet.
    assert run_virtually(seconds(True)) < 0.6 * run_virtually(seconds(False))


@pytest.mark.parametrize(("n_texts", "calls"), [(8, 1), (32, 1), (64, 2), (100, 3), (256, 4)])
def test_a_call_is_worth_its_cost(n_texts: int, calls: int) -> None:
    async def sent(tokens_per_s: float) -> list[int]:
        service = Service(4, tokens_per_s)
        await service.meet()
        await service.ask(n_texts)
        return service.calls

    found = run_virtually(sent(TOKENS_PER_S))
    assert len(found) == calls
    assert max(found) - min(found) <= calls
    if calls > 1:
        assert min(found) * TOKENS / TOKENS_PER_S > 0.9 * CALL_S
    assert run_virtually(sent(1e6)) == [n_texts]
