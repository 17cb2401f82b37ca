"""LocalClassifier: the service's chain in this process, without Ray.

```python
with LocalClassifier({"model": {"id": "models/demo"}}) as classifier:
    classifier.classify("质量很好，会再来")
```
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from deployments.engines.loaded import Loaded, load
from deployments.engines.machine import cpu_count
from deployments.http.call import Call, read_call
from deployments.pipeline.batcher import ModelThread, TokenBatcher
from deployments.pipeline.errors import InvalidInput, ServiceError
from deployments.pipeline.explaining import EXPLANATION, window_of
from deployments.pipeline.live_models import Encodings, LiveModels
from deployments.pipeline.pipeline import Pipeline
from deployments.pipeline.types import (
    Answer,
    Deadlines,
    Encoded,
    FlowRuns,
    Logits,
    Options,
    Predicted,
    TextInput,
)
from deployments.pipeline.windows import Plan
from deployments.privacy.redact import redactor_of
from deployments.settings import Settings
from deployments.user_config import ClassifierUserConfig

if TYPE_CHECKING:
    from deployments.explain.explainer import Explainer

# As in the service: its own threads would take the cores from the model.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_PATIENCE_S = 1e6  # without a deadline of its own a call waits for its answer


class LocalClassifier:
    """Answers what `classify` of the service's handle answers. Ready once it is made; threads may
    share one.

    args: what stands under `args:` of serve_config.yaml. Of it `limits`' deadline, `batching`,
    `audit` and `access` concern a service only. max_batch_tokens: of a forward pass; the default
    suits a CPU.

    Raises:
        pydantic.ValidationError: an unknown key or a wrong value in `args`.
        ModelNotFound, EngineUnavailable, ModelBroken: the model can't be served; the message says
            why, and the cure.
    """

    def __init__(
        self,
        args: dict[str, Any] | Settings | None = None,
        *,
        max_batch_tokens: int = ClassifierUserConfig().max_batch_tokens,
    ) -> None:
        settings = args if isinstance(args, Settings) else Settings.model_validate(args or {})
        self._settings = settings
        self._limits = settings.limits
        self._explainer: Explainer | None = None
        self._explaining = threading.Lock()
        self._thread = ModelThread()
        num_threads = settings.engine.num_threads or cpu_count()
        try:
            self.loaded: Loaded = self._thread.wait_for(lambda: load(settings, num_threads))
            self._pipeline = _pipeline(settings, self.loaded, self._thread, max_batch_tokens)
        except BaseException:
            self._thread.close()
            raise
        self._loop = asyncio.new_event_loop()
        self._looping = threading.Thread(target=self._loop.run_forever, name="local", daemon=True)
        self._looping.start()

    def classify(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
        **options: Any,
    ) -> Answer | list[Answer]:
        """One text gives one answer; a list gives a list in order, with `{"error": ...}` in the
        place of a bad text. `options`: top_k, truncation, raw_scores, threshold, timeout_ms.

        Raises:
            ServiceError: of the same kinds as over HTTP; see pipeline/errors.py.
        """
        if text_pair is not None:
            options["text_pair"] = text_pair
        call = read_call(text, options, self._limits, timeout_s)
        running = asyncio.run_coroutine_threadsafe(self._run(call), self._loop)
        return call.answer(running.result())

    def explain(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        target: str | None = None,
        method: str = "auto",
        passes: int = 32,
        **options: Any,
    ) -> Answer:
        """The answer of `classify`, and `explanation`: what each part of the text added to a label.

        target: the label to explain; None: the one answered. method, passes: see
        `Explainer.explain`. The first call loads the weights once more, in float32.

        Raises:
            ServiceError: as `classify`; also an unknown label or method, or a method that needs
                captum where it is not installed.
        """
        from deployments.explain.explainer import Explainer  # loads torch's classes

        if not isinstance(text, str):
            raise InvalidInput("explain takes one text. Call it for each.")
        if text_pair is not None:
            options["text_pair"] = text_pair
        (item,) = read_call(text, options, self._limits).inputs
        if isinstance(item, ServiceError):
            raise item
        answer = self.classify(text, **options)
        assert isinstance(answer, dict)  # noqa: S101
        with self._explaining:
            if self._explainer is None:
                self._explainer = Explainer(self._settings, self.loaded.parts)
        label = answer["label"] if target is None else target
        found = self._explainer.explain(item, label, method, passes, window=window_of(answer))
        return {**answer, EXPLANATION: found}

    def close(self) -> None:
        """Ends its threads. The model's memory goes with the last reference to this object."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._looping.join()
        self._loop.close()
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def _run(self, call: Call) -> list[Answer | ServiceError]:
        good = [item for item in call.inputs if isinstance(item, TextInput)]
        deadline = asyncio.get_running_loop().time() + (call.timeout_s or _PATIENCE_S)
        answers = iter(await self._pipeline.run(good, [deadline] * len(good)) if good else ())
        return [next(answers) if isinstance(item, TextInput) else item for item in call.inputs]


def _pipeline(
    settings: Settings, loaded: Loaded, thread: ModelThread, max_batch_tokens: int
) -> Pipeline:
    """The chain of the three deployments, as plain functions."""
    long_text = settings.long_text
    decoder, version = loaded.parts.decoder(), loaded.parts.version
    models = LiveModels(_nobody_else, redactor_of(settings.redaction))
    models.add(loaded.parts)
    batcher = TokenBatcher(
        loaded.engine.predict,
        max_batch_tokens=max_batch_tokens,
        max_queue_tokens=ClassifierUserConfig().max_queue_tokens,
        run=thread,
    )

    async def encode(inputs: Sequence[TextInput]) -> Encodings:
        return models.encode(inputs)

    async def predict(batch: Encoded, deadlines: Deadlines, flows: FlowRuns | None) -> Predicted:
        left_s = (deadlines - asyncio.get_running_loop().time()).astype(np.float32)
        logits = await batcher.submit(batch, left_s, flows)
        return Predicted.of(Logits(logits.values, logits.errors, version), len(batch))

    async def postprocess(logits: Logits, options: Sequence[Options]) -> list[Answer]:
        return decoder.decode(logits, options)

    async def plan(inputs: Sequence[TextInput]) -> Plan | None:
        return models.plan(inputs, long_text)

    return Pipeline(encode, predict, postprocess, plan=plan, pooling=long_text.pooling)


async def _nobody_else(known: Collection[str]) -> None:
    return None
