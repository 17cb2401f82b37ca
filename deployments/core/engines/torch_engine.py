"""The model through torch: packed where its architecture allows, else padded by length."""

from __future__ import annotations

import logging
from typing import Any

import torch
import transformers

from deployments.core.engines import parity
from deployments.core.engines.base import EngineUnavailable, warm_up
from deployments.core.engines.hardware import pick_device, pick_dtype
from deployments.core.engines.linear import accelerate
from deployments.core.engines.loading import load_model
from deployments.core.engines.packed import CannotPack, PackedRunner
from deployments.core.engines.padded import PaddedRunner, takes_token_types
from deployments.core.model_source import model_info
from deployments.core.types import Encoded, EngineInfo, Logits
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

_WARMUP_LENGTHS = (8, 16, 32, 64, 128, 256, 512)

Runner = PackedRunner | PaddedRunner


class TorchEngine:
    """Any AutoModelForSequenceClassification.

    Raises (from `load`):
        ModelNotFound: the weights can't be read, don't fit the config, or don't classify.
        EngineUnavailable: the dtype can't be had here.
        ValueError: the device can't be had here.
    """

    def __init__(self, model: ModelSettings, engine: EngineSettings, num_threads: int) -> None:
        self._model_settings = model
        self._engine_settings = engine
        self._num_threads = num_threads
        self._device = torch.device("cpu")
        self._dtype = "float32"
        self._batching_reason: str | None = None
        self._runner: Runner | None = None

    def load(self) -> None:
        torch.set_num_threads(self._num_threads)
        self._device = pick_device(self._engine_settings.device)
        self._dtype = pick_dtype(self._engine_settings.dtype, self._device)
        if self._dtype == "int8" and self._device.type != "cpu":
            raise EngineUnavailable(
                f"args.engine.dtype is int8, which this engine has on CPUs only, not on "
                f"{self._device.type}. Set dtype: auto."
            )
        max_length = model_info(self._model_settings).max_length
        model = load_model(self._model_settings)
        texts = parity.random_texts(model.config, max_length, takes_token_types(model))
        padded = PaddedRunner(model)
        reference = parity.one_by_one(padded, texts)
        if parity.drift(padded(texts), reference) > parity.MAX_DRIFT["float32"]:
            # XLNet reads the last token, FNet has no mask: only texts of one length share a pass.
            logger.warning("this model's answers depend on padding: it is given none")
            padded = PaddedRunner(model, overhead_tokens=0)
        runner = self._pack(padded, texts, reference)
        if self._convert(runner, fast=True) and self._too_far(runner, texts, reference):
            # The products computed in place of the model's own: start again without them.
            model = load_model(self._model_settings)
            padded = PaddedRunner(model, padded.overhead_tokens)
            runner = self._pack(padded, texts, reference)
            self._convert(runner, fast=False)
        self._runner = runner
        warm_up(self.predict, _WARMUP_LENGTHS, max_length, int(model.config.vocab_size))
        info = self.info()
        reason = f" ({info.batching_reason})" if info.batching_reason else ""
        logger.info(
            "model runs %s%s on %s in %s with %d threads",
            info.batching,
            reason,
            info.device,
            info.dtype,
            info.num_threads,
        )

    def predict(self, batch: Encoded) -> Logits:
        assert self._runner is not None  # noqa: S101 - the protocol says: load first
        return Logits(self._runner(batch))

    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="torch",
            device=str(self._device),
            dtype=self._dtype,
            num_threads=self._num_threads,
            versions={
                # str: torch's own type is no plain string, and JSON encoders refuse it.
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
            },
            batching="packed" if self._batching_reason is None else "padded",
            batching_reason=self._batching_reason,
        )

    def _pack(self, padded: PaddedRunner, texts: Encoded, reference: Any) -> Runner:
        """The packed runner where it agrees with the padded one, else that."""
        self._batching_reason = None
        if not self._engine_settings.packing:
            self._batching_reason = "args.engine.packing is false"
            return padded
        implementation = padded.model.config._attn_implementation
        try:
            packed = PackedRunner(padded.model)
            drift = parity.drift(packed(texts), reference)
            if drift <= parity.MAX_DRIFT["float32"]:
                return packed
            self._batching_reason = f"packed logits differ from padded ones by {drift:.2g}"
        except CannotPack as exc:
            self._batching_reason = str(exc)
        except Exception as exc:  # a class may fail in any way on what it wasn't made for
            self._batching_reason = f"its class can't be packed ({type(exc).__name__})"
        padded.model.set_attn_implementation(implementation)
        return padded

    def _convert(self, runner: Runner, fast: bool) -> bool:
        """Brings the runner to its device and dtype; whether with faster linear layers."""
        model = runner.model
        encoder = runner.encoder if isinstance(runner, PackedRunner) else model.base_model
        if isinstance(runner, PackedRunner):
            runner.release()
        if self._dtype != "int8":
            dtype = getattr(torch, self._dtype)
            model.to(self._device, dtype)
            encoder.to(self._device, dtype)
        if self._device.type != "cpu" or self._dtype == "float16" or not fast:
            return False
        accelerated = accelerate(encoder, self._dtype)
        if self._dtype == "int8" and not accelerated:
            raise EngineUnavailable(
                "args.engine.dtype is int8, and this build of torch or this CPU has no 8-bit "
                "products. Set dtype: auto."
            )
        return accelerated

    def _too_far(self, runner: Runner, texts: Encoded, reference: Any) -> bool:
        drift = parity.drift(runner(texts), reference)
        if drift <= parity.MAX_DRIFT[self._dtype]:
            return False
        logger.warning("%s logits are off by %.2g: linear layers stay plain", self._dtype, drift)
        if self._dtype == "int8":
            raise EngineUnavailable(
                f"in int8 this model's logits are off by {drift:.2g}. Set dtype: auto."
            )
        return True
