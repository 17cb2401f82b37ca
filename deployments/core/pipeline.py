"""The order of the stages, in one place: encode → predict → postprocess.

The three stages are async callables: handles of Ray deployments in production, plain functions in
tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deployments.core.errors import ServiceError
from deployments.core.flow import FlowRuns, runs_of
from deployments.core.tokenize import EncodedTexts
from deployments.core.types import Answer, Encoded, Float32, Logits, Options, TextInput

Encode = Callable[[Sequence[TextInput]], Awaitable[EncodedTexts]]
Predict = Callable[[Encoded, Float32, FlowRuns | None], Awaitable[Logits]]
Postprocess = Callable[[Logits, Sequence[Options]], Awaitable[list[Answer]]]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Text in, label out, for one micro-batch."""

    encode: Encode
    predict: Predict
    postprocess: Postprocess

    async def run(
        self, inputs: Sequence[TextInput], timeouts_s: Sequence[float]
    ) -> list[Answer | ServiceError]:
        """One answer or error per input, in order.

        timeouts_s: seconds left to each input; the classifier drops what is past its time.

        Raises:
            ServiceError: the whole batch failed, e.g. Overloaded.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        encoded = await self.encode(inputs)
        results: list[Answer | ServiceError | None] = [None] * len(inputs)
        for i, error in encoded.errors.items():
            results[i] = error
        if encoded.index:
            left_s = np.asarray([timeouts_s[i] for i in encoded.index], np.float32)
            left_s -= np.float32(loop.time() - started)
            flows = runs_of([inputs[i].flow for i in encoded.index])
            logits = await self.predict(encoded.batch, left_s, flows)
            answers = await self.postprocess(logits, [inputs[i].options for i in encoded.index])
            failed = logits.errors or {}
            for k, i in enumerate(encoded.index):
                results[i] = failed.get(k) or {
                    **answers[k],
                    "tokens": int(encoded.batch.lengths[k]),
                    "truncated": encoded.truncated[k],
                    **({} if encoded.redacted is None else {"redacted": encoded.redacted[k]}),
                }
        return [result for result in results if result is not None]
