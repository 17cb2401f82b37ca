"""Whether a replica's model gets on with its work, not only whether its process answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import numpy as np

from deployments.pipeline.batcher import TokenBatcher
from deployments.pipeline.errors import Overloaded, PredictionFailed
from deployments.pipeline.latency_model import WARM_UP
from deployments.pipeline.queue import Slice
from deployments.pipeline.types import Encoded

logger = logging.getLogger(__name__)

_PROBE_TIMEOUT_S = 5.0  # below Serve's health_check_timeout_s
# A pass hangs from so many times its expected duration on, and not before so many seconds.
HANGS_FACTOR = 20.0
MIN_HANGS_S = 10.0
_AS_LARGE = 4.0  # as the largest pass seen: the curve is believed up to there
_LOOK_EVERY_S = 0.5
# A loop that wakes up so late did not run, nor did the model: the whole process stood still.
_STOOD_STILL_S = 0.5
_LAST_WORDS_S = 0.5  # for answers to leave the process


class ModelStalled(Exception):
    """A forward pass takes longer than any should. Its thread can't be ended, only its process."""


# Tokens: enough for each of a vocabulary's marks, as some classes look for their own.
PROBE_TOKENS = 8


def harmless(max_length: int) -> Encoded:
    """The first ids of any vocabulary, as many as the model reads."""
    n = min(PROBE_TOKENS, max_length)
    return Encoded(np.arange(n, dtype=np.int32), np.asarray([n], np.int32))


class ModelHealth:
    """Judges a model by its batcher.

    max_pass_s: no forward pass takes longer while all is well; may be changed at any time. Where
    passes as large are known to be quick, one counts as hanging earlier.
    """

    def __init__(
        self, batcher: TokenBatcher, max_pass_s: float, max_length: int = PROBE_TOKENS
    ) -> None:
        self.max_pass_s = max_pass_s
        self._max_length = max_length
        self._batcher = batcher
        self._pass: list[Slice] = []
        self._stood_still_s = 0.0

    @property
    def limit_s(self) -> float:
        """How long the pass under way may take."""
        curve, running = self._batcher.curve, self._batcher.running
        tokens = sum(piece.tokens for piece in running)
        if curve.n_observed < WARM_UP or tokens > _AS_LARGE * curve.most_tokens:
            return self.max_pass_s
        longest = max((int(piece.encoded().lengths.max()) for piece in running), default=0)
        expected_s = curve.coefficients().pass_s(tokens, longest)
        return min(self.max_pass_s, max(MIN_HANGS_S, HANGS_FACTOR * expected_s))

    async def watch(self, end: Callable[[], object]) -> None:
        """Looks on until a pass hangs, tells its callers by Hung, and calls `end`.

        The thread of such a pass can't be ended, only its process: `end` should do that, as
        callers with other texts then go elsewhere at once.
        """
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_LOOK_EVERY_S)
            late_s = loop.time() - before - _LOOK_EVERY_S
            if self._batcher.running is not self._pass:
                self._pass, self._stood_still_s = self._batcher.running, 0.0
            elif late_s > _STOOD_STILL_S:
                self._stood_still_s += late_s
            age_s = self._batcher.pass_age_s - self._stood_still_s
            if age_s > self.limit_s:
                break
        n_texts = sum(map(len, self._batcher.running))
        logger.error(
            "a forward pass over %d texts has run for %.0f s and is taken to hang: this process "
            "ends and is replaced; where passes are so long, raise max_pass_s (%g)",
            n_texts, age_s, self.max_pass_s,
        )  # fmt: skip
        self._batcher.abandon()
        await asyncio.sleep(_LAST_WORDS_S)
        end()

    async def check(self) -> None:
        """Returns within 5 s, whatever the model does.

        A pass that never ends shows by its age, whether the device hangs or the model's thread is
        gone. After an error on a GPU every later one fails too, and a replica that fails at once
        draws the load of all others; but texts may also be at fault, so a harmless one decides.

        Raises:
            ModelStalled: the pass under way is older than `max_pass_s`.
            PredictionFailed: the model fails on any text.
        """
        age_s = self._batcher.pass_age_s
        if age_s > self.max_pass_s:
            raise ModelStalled(
                f"the forward pass under way has run for {age_s:.0f} s, max_pass_s is "
                f"{self.max_pass_s:g}: the replica is replaced; where passes are so long, raise it"
            )
        if not self._batcher.failed_batches:
            return
        try:
            # The batcher looks at deadlines only between passes: this one may not end.
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                timeouts_s = np.asarray([_PROBE_TIMEOUT_S], np.float32)
                logits = await self._batcher.submit(harmless(self._max_length), timeouts_s)
        except (Overloaded, TimeoutError):
            return  # the next batches will tell, or the age of this pass
        error = (logits.errors or {}).get(0)
        if isinstance(error, PredictionFailed):
            raise error
