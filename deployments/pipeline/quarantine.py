"""Texts under suspicion of killing the model's process, and those found guilty.

A process that the kernel ends (out of memory, a fault in native code) takes all its calls along.
Tried again together, one poisonous text would take a whole micro-batch into every replica's death.
So who was there at two deaths is classified alone, and one at a time. The process has others in it
still, so one more death proves little: who was alone at two, in whichever requests, is guilty and
refused for a while. A text costs four replicas at most. It costs nobody else an answer unless
others like it come at the same time, and kill both processes in which an innocent one was alone.

A process whose model hangs says which texts it hangs with before it ends. A lone one is guilty at
once, others are classified alone: two replicas at most, one after the other. What a model is at
work on is never given to a second one meanwhile, or one text would stop them all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Set
from itertools import count

import numpy as np

from deployments.pipeline.errors import DeadlineExceeded, PredictionFailed, ServiceError
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.retry import Attempts, Hung, LostReplica
from deployments.pipeline.types import (
    Deadlines,
    Encoded,
    FlowRuns,
    Logits,
    OtherModel,
    Predicted,
    only,
)

logger = logging.getLogger(__name__)

Predict = Callable[..., Awaitable[Logits | OtherModel]]
Holding = Callable[[], Awaitable[Set[int]]]

REFUSED_S = 300.0
MAX_REFUSED = 1_000
_TOGETHER = 2  # tries
# Between two tries alone. By then those that died before are back, so that the next death is not
# the last replica's; and suspects of several ingress replicas do not meet twice.
APART_S = (4.0, 8.0)
_REFUSED = (
    "The model's process died of this text or hung with it, with no other under suspicion. It is "
    f"refused for {REFUSED_S:.0f} s. Shorten it, or tell whoever runs this service."
)


class Quarantine:
    """`predict`, by several tries, so that a text that kills its process fails alone.

    predict: one try, with batch, deadlines, flows, whether alone, and call_id; raises LostReplica.
    holding: the `call_id` of all calls that replicas have and get on with. observer: told of each
    text that is found guilty.
    """

    def __init__(
        self,
        predict: Predict,
        attempts: Attempts,
        holding: Holding,
        observer: Observer = SILENT,
    ) -> None:
        self._observer = observer
        self._predict = predict
        self._attempts = attempts
        self._holding = holding
        self._one_at_a_time = asyncio.Lock()
        # Calls of several ingress replicas meet in one classifier.
        self._call_ids = count(random.getrandbits(60))
        # A text's hash → until when.
        self._refused: dict[int, float] = {}
        self._accused: dict[int, float] = {}

    async def predict(
        self, batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None = None
    ) -> Predicted:
        """What became of all texts of `batch`. deadlines: see `types.Deadlines`.

        flows: as `TokenBatcher.submit` takes them.

        Raises:
            ServiceError: what the replica raised for all of them, or DeadlineExceeded.
        """
        if self._refused:
            texts = batch.split()
            good = [i for i, text in enumerate(texts) if not self._is_refused(text)]
            if len(good) < len(batch):
                refused = set(range(len(batch))).difference(good)
                told = Predicted(errors={i: PredictionFailed(_REFUSED) for i in refused})
                if not good:
                    return told
                rest = Encoded.concat([texts[i] for i in good])
                others = await self._together(rest, deadlines[good], only(good, flows))
                return Predicted.joined([others.at(good), told])
        return await self._together(batch, deadlines, flows)

    async def _together(
        self, batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None
    ) -> Predicted:
        hung: list[Hung] = []
        try:
            return Predicted.of(await self._tried(batch, deadlines, flows), len(batch))
        except Hung as exc:
            hung.append(exc)
        except LostReplica:
            logger.warning("%d texts lost their replica twice: now one by one", len(batch))
            return await self._alone(batch, deadlines, flows)
        # Outside of `except`: what is raised from here on must not have its frames as context.
        return await self._after_hanging(hung.pop(), batch, deadlines, flows)

    async def _after_hanging(
        self, hung: Hung, batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None
    ) -> Predicted:
        """Suspects alone, and meanwhile the others together."""
        texts = batch.split()
        if hung.n_texts == 1:
            self._refuse(texts[hung.suspects[0]])
        suspects = list(hung.suspects)
        others = sorted(set(range(len(batch))).difference(suspects))

        def part(places: list[int]) -> tuple[Encoded, Deadlines, FlowRuns | None]:
            some = Encoded.concat([texts[i] for i in places])
            return some, deadlines[places], only(places, flows)

        if not others:
            return (await self._alone(*part(suspects))).at(suspects)
        alone, rest = await asyncio.gather(
            self._alone(*part(suspects)), self._in_time(*part(others))
        )
        return Predicted.joined([alone.at(suspects), rest.at(others)])

    async def _in_time(
        self, batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None
    ) -> Predicted:
        """As `_together`, but an error of all stands in the place of each text."""
        try:
            return await self._together(batch, deadlines, flows)
        except ServiceError as exc:
            return Predicted(errors=dict.fromkeys(range(len(batch)), exc))

    async def _tried(
        self, batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None, *, alone: bool = False
    ) -> Logits | OtherModel:
        call_id = next(self._call_ids)

        async def held() -> bool:
            return call_id in await self._holding()

        return await self._attempts.run(
            lambda: self._predict(batch, deadlines, flows, alone, call_id),
            float(deadlines.max()),
            tries=1 if alone else _TOGETHER,
            held=held,
        )

    async def _alone(
        self, batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None
    ) -> Predicted:
        told: list[Predicted] = []
        for i, text in enumerate(batch.split()):
            try:
                answer = await self._judged(text, float(deadlines[i]), only([i], flows))
            except ServiceError as exc:
                told.append(Predicted(errors={i: exc}))
            else:
                told.append(Predicted.of(answer, 1).at([i]))
        return Predicted.joined(told)

    async def _judged(
        self, text: Encoded, deadline: float, flows: FlowRuns | None
    ) -> Logits | OtherModel:
        loop = asyncio.get_running_loop()
        while True:
            async with self._one_at_a_time:
                if self._is_refused(text):
                    raise PredictionFailed(_REFUSED)
                left_s = deadline - loop.time()
                if left_s <= 0:
                    raise DeadlineExceeded("The model did not answer in time. Retry later.")
                try:
                    until = np.asarray([deadline], np.float64)
                    answer = await self._tried(text, until, flows, alone=True)
                except Hung:  # with this text, as it says itself
                    self._refuse(text)
                except LostReplica:
                    self._accuse(text)
                else:
                    if isinstance(answer, Logits):
                        self._accused.pop(_key(text), None)
                    return answer
            if not self._is_refused(text):
                left_s = max(deadline - loop.time(), 0.0)
                await asyncio.sleep(min(random.uniform(*APART_S), left_s / 2))  # noqa: S311

    def _accuse(self, text: Encoded) -> None:
        """It was alone at a death. At the second it is guilty."""
        now = asyncio.get_running_loop().time()
        if self._accused.pop(_key(text), 0.0) > now:
            self._refuse(text)
            return
        while len(self._accused) >= MAX_REFUSED:
            del self._accused[next(iter(self._accused))]
        self._accused[_key(text)] = now + REFUSED_S

    def _refuse(self, text: Encoded) -> None:
        while len(self._refused) >= MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[_key(text)] = asyncio.get_running_loop().time() + REFUSED_S
        self._observer.quarantined()
        logger.error("a text of %d tokens killed or hung its process, alone", text.total_tokens)

    def _is_refused(self, text: Encoded) -> bool:
        until = self._refused.get(_key(text))
        if until is None:
            return False
        if until > asyncio.get_running_loop().time():
            return True
        del self._refused[_key(text)]
        return False


def _key(text: Encoded) -> int:
    """Of the text as all its models read it: what kills one of them may be harmless to the next."""
    seen: list[object] = []
    made: Encoded | None = text
    while made is not None:
        seen += made.model, made.input_ids.tobytes()
        made = made.also
    return hash(tuple(seen))
