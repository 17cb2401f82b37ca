"""The service with faults built in, for texts that ask.

Its `import_path` is `tests.trials.privacy_faults:build`.

Every other text takes the way it always takes. Faults quote the text wherever they can: nothing of
it may be seen anywhere.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.util.metrics import Counter

from deployments.app import deployment
from deployments.classifier import Classifier
from deployments.config.capacity import EXPLAINER
from deployments.explainer import Explainer
from deployments.pipeline.live_models import Encodings
from deployments.pipeline.tasks import Decoder
from deployments.pipeline.types import Answer, Encoded, Logits, ModelInfo, Options, TextInput
from deployments.postprocessor import Postprocessor
from deployments.settings import Settings
from deployments.tokenizer import Tokenizer

from .heap import holders

RAISE, PANIC, FORGET = "抛出异常", "恐慌", "忘记"
"""In a text: an exception in the ingress; one that is no Exception; one in a task nobody awaits."""
LOG, COUNT = "写入日志", "写入指标"
"""Controls: the text is logged; it becomes a metric's tag."""
FAILING_TOKENS, SLOW_TOKENS = 201, 202
"""Length of a text on which the engine raises, and of one that takes SLOW_S."""
SLOW_S = 3.0
FAILING_TOP_K = 7
FILE_VARIABLE = "PRIVACY_TRIAL_FILE"
"""Names a file with the text that the Postprocessor's error quotes: it gets none of its own."""

logger = logging.getLogger("deployments.trial")


class Panic(BaseException):
    """As a panic in Rust code: no Exception."""


class FaultyTokenizer(Tokenizer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        models = self._chain._models
        encode = models.encode

        def encode_or_panic(inputs: Sequence[TextInput]) -> Encodings:
            if any(PANIC in item.text for item in inputs):
                raise Panic(f"byte index 5 is not a boundary of {inputs[0].text}")
            return encode(inputs)

        models.encode = encode_or_panic  # type: ignore[method-assign]

    async def classify_inputs(self, inputs: Sequence[Any], timeout_s: float | None = None) -> Any:
        text = " ".join(item.text for item in inputs if isinstance(item, TextInput))
        if RAISE in text:
            raise RuntimeError(f"failed on {text} of {inputs}")
        if FORGET in text:
            self._forgotten = asyncio.create_task(_fail(text))
            del self._forgotten
        if LOG in text:
            logger.error("control: %s", text)
        if COUNT in text:
            self._counter = Counter("privacy_trial", "a control", tag_keys=("text",))
            self._counter.inc(tags={"text": text.encode("ascii", "ignore").decode()})
        return await super().classify_inputs(inputs, timeout_s)

    async def held(self, reversed_core: str, ids: list[int], collect: bool) -> list[str]:
        """See `holders`; reversed, so that the question is not what is found."""
        if collect:
            gc.collect()
        return holders(reversed_core[::-1], ids)


class FaultyClassifier(Classifier):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._batcher._predict = self._predict_or_fail

    def _predict_or_fail(self, batch: Encoded) -> Logits:
        if FAILING_TOKENS in batch.lengths:
            raise ValueError(f"no kernel for {batch.input_ids.tolist()}, {batch}")
        if SLOW_TOKENS in batch.lengths:
            time.sleep(SLOW_S)
        return self._engine.predict(batch)


class FaultyPostprocessor(Postprocessor):
    def _decoder_for(self, info: ModelInfo) -> Decoder:
        decoder = super()._decoder_for(info)
        decode = decoder.decode

        def decode_or_fail(logits: Logits, options: Sequence[Options]) -> list[Answer]:
            if any(one.top_k == FAILING_TOP_K for one in options):
                raise RuntimeError(Path(os.environ[FILE_VARIABLE]).read_text(encoding="utf-8"))
            return decode(logits, options)

        decoder.decode = decode_or_fail  # type: ignore[method-assign]
        return decoder


async def _fail(text: str) -> None:
    raise RuntimeError(f"nobody awaits {text}")


def build(args: dict[str, Any]) -> Application:
    """As deployments.app:build."""
    settings = Settings.model_validate(args)
    classifier = deployment("Classifier")(FaultyClassifier)
    postprocessor = deployment("Postprocessor")(FaultyPostprocessor)
    ingress = deployment("Tokenizer")(serve.ingress()(FaultyTokenizer))
    explainer = deployment(EXPLAINER)(Explainer)
    application: Application = ingress.bind(
        settings, classifier.bind(settings), postprocessor.bind(), None, explainer.bind(settings)
    )
    return application
