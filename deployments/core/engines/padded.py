"""Plain transformers: padded rows, grouped by length so that little is padding."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from deployments.core.engines.hardware import pick_device, pick_dtype
from deployments.core.model_source import ModelNotFound, find_model
from deployments.core.types import Encoded, EngineInfo, Logits
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

# What starting one more forward pass costs, in tokens of padding that cost as much.
FORWARD_OVERHEAD_TOKENS = 32
_WARMUP_LENGTHS = (8, 32, 128)


class PaddedEngine:
    """Any AutoModelForSequenceClassification through its own padded forward.

    Raises (from `load`):
        ModelNotFound: the weights can't be read, don't fit the config, or don't classify.
        ValueError: the device or dtype can't be had here.
    """

    def __init__(self, model: ModelSettings, engine: EngineSettings, num_threads: int) -> None:
        self._model_settings = model
        self._engine_settings = engine
        self._num_threads = num_threads
        self._model: Any = None
        self._device = torch.device("cpu")
        self._dtype = torch.float32
        self._pad_token_id = 0
        self._takes_token_types = False

    def load(self) -> None:
        torch.set_num_threads(self._num_threads)
        self._device = pick_device(self._engine_settings.device)
        self._dtype = pick_dtype(self._engine_settings.dtype, self._device)
        source = find_model(self._model_settings.id)
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source,
                revision=self._model_settings.revision,
                trust_remote_code=self._model_settings.trust_remote_code,
                dtype=self._dtype,
                output_loading_info=True,
            )
        except OSError as exc:
            raise ModelNotFound(
                f"can't load the weights of {self._model_settings.id!r} ({type(exc).__name__}). "
                "Check args.model.id and revision, and that this machine reaches the hub."
            ) from exc
        except (RuntimeError, SafetensorError) as exc:
            raise ModelNotFound(
                f"the weights of {self._model_settings.id!r} are damaged or made for another "
                f"config.json ({type(exc).__name__}). Fetch or save the model again."
            ) from exc
        if missing := sorted(report["missing_keys"]):
            # transformers fills them with random numbers, and says so in a log only.
            raise ModelNotFound(
                f"the weights of {self._model_settings.id!r} have no {missing[0]}: it is not "
                "trained to classify and would answer at random. Set args.model.id to one that is."
            )
        self._model = model.eval().to(self._device)
        self._pad_token_id = int(getattr(model.config, "pad_token_id", None) or 0)
        self._takes_token_types = "token_type_ids" in inspect.signature(model.forward).parameters
        self._warm_up()

    def predict(self, batch: Encoded) -> Logits:
        texts = batch.split()
        out: np.ndarray | None = None
        for group in group_by_length(batch.lengths, FORWARD_OVERHEAD_TOKENS):
            values = self._forward([texts[i] for i in group])
            if out is None:
                out = np.empty((len(batch), values.shape[1]), np.float32)
            out[group] = values
        assert out is not None  # noqa: S101 - a batch has at least one text
        return Logits(out)

    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="torch",
            device=str(self._device),
            dtype=str(self._dtype).removeprefix("torch."),
            num_threads=self._num_threads,
            versions={
                # str: torch's own type is no plain string, and JSON encoders refuse it.
                "torch": str(torch.__version__),
                "transformers": transformers.__version__,
            },
            batching="padded",
        )

    @torch.inference_mode()
    def _forward(self, texts: list[Encoded]) -> np.ndarray:
        shape = (len(texts), max(text.total_tokens for text in texts))
        input_ids = np.full(shape, self._pad_token_id, np.int64)
        attention_mask = np.zeros(shape, np.int64)
        token_types = np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            input_ids[row, : text.total_tokens] = text.input_ids
            attention_mask[row, : text.total_tokens] = 1
            if text.token_type_ids is not None:
                token_types[row, : text.total_tokens] = text.token_type_ids
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._takes_token_types:
            arrays["token_type_ids"] = token_types
        tensors = {k: torch.from_numpy(v).to(self._device) for k, v in arrays.items()}
        logits: np.ndarray = self._model(**tensors).logits.float().cpu().numpy()
        return logits

    def _warm_up(self) -> None:
        vocab_size = int(getattr(self._model.config, "vocab_size", 1_000))
        limit = int(getattr(self._model.config, "max_position_embeddings", 512) or 512) - 2
        for length in _WARMUP_LENGTHS:
            length = max(1, min(length, limit))
            ids = np.arange(length, dtype=np.int32) % vocab_size
            self.predict(Encoded(ids, np.asarray([length], np.int32)))


def group_by_length(lengths: np.ndarray, overhead_tokens: int) -> list[list[int]]:
    """Indices of texts to pad together, longest first.

    A group ends where its padding would cost more than one more forward pass: mixed lengths in one
    padded batch are slower than no batch at all.
    """
    groups: list[list[int]] = []
    padding = longest = 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        padding += longest - length
        if not groups or padding > overhead_tokens:
            groups.append([])
            longest, padding = length, 0
        groups[-1].append(i)
    return groups
