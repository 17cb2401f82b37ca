"""Whether a replica's model gets on with its work, not only whether its process answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from deployments.core.batcher import TokenBatcher
from deployments.core.errors import Overloaded, PredictionFailed
from deployments.core.types import Encoded, Logits

_HARMLESS = Encoded(np.zeros(8, np.int32), np.asarray([8], np.int32))
_PROBE_TIMEOUT_S = 5.0  # below Serve's health_check_timeout_s


class ModelBroken(Exception):
    """It loads and runs, but computes nothing of use."""


class ModelStalled(Exception):
    """A forward pass takes longer than any should. Its thread can't be ended, only its process."""


def prove(predict: Callable[[Encoded], Logits], model: str) -> None:
    """One pass before the first caller's, so that an update to a broken model is not carried out.

    Raises:
        ModelBroken: not all of a harmless text's logits are finite numbers.
    """
    if not np.isfinite(predict(_HARMLESS).values).all():
        raise ModelBroken(
            f"the model {model!r} gives no finite number for a harmless text: its weights are "
            "damaged, or too large for this precision. Save it again, or set "
            "args.engine.dtype: float32."
        )


class ModelHealth:
    """Judges a model by its batcher.

    max_pass_s: no forward pass takes longer while all is well; may be changed at any time.
    """

    def __init__(self, batcher: TokenBatcher, max_pass_s: float) -> None:
        self.max_pass_s = max_pass_s
        self._batcher = batcher

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
                logits = await self._batcher.submit(_HARMLESS, timeouts_s)
        except (Overloaded, TimeoutError):
            return  # the next batches will tell, or the age of this pass
        error = (logits.errors or {}).get(0)
        if isinstance(error, PredictionFailed):
            raise error
