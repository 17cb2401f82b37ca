"""The model through torch: packed where its architecture allows, else padded by length."""

from __future__ import annotations

import gc
import logging
from dataclasses import asdict
from typing import Any

import torch
import transformers

from deployments.engines import graph_trial, parity
from deployments.engines.base import EngineUnavailable, warm_up
from deployments.engines.cuda_graphs import GraphedRunner
from deployments.engines.hardware import pick_device, pick_dtype
from deployments.engines.kept import Kept, Store, circumstances
from deployments.engines.loading import Loaded, load
from deployments.engines.packed import PackedRunner
from deployments.engines.ways import Chosen, Proof, Runner, as_proven, choose_way
from deployments.model.source import model_info
from deployments.model.steps import step
from deployments.pipeline.types import Encoded, EngineInfo, Logits
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

# A new size of row compiles for a millisecond: what takes long is a library's first use.
_WARMUP_LENGTHS = (8, 64)


class TorchEngine:
    """Any AutoModelForSequenceClassification.

    Raises (from `load`):
        ModelNotFound: the weights can't be read, don't fit the config, or don't classify.
        EngineUnavailable: the dtype can't be had here, or no way of running it is right.
        ModelBroken: its answers are no numbers.
        ValueError: the device can't be had here.
    """

    def __init__(
        self,
        model: ModelSettings,
        engine: EngineSettings,
        num_threads: int,
        store: Store | None = None,
    ) -> None:
        self._model_settings = model
        self._engine_settings = engine
        self._num_threads = num_threads
        self._device = torch.device("cpu")
        self._dtype = "float32"
        self._kept = Kept("proofs", store)
        self._row_tokens: int | None = None
        self._way: Chosen | None = None
        self._run: Runner | GraphedRunner | None = None
        self._graphs: tuple[str, ...] = ()

    @property
    def row_tokens(self) -> int | None:
        """See `Engine`. Known once it is loaded; what is set before holds from then on."""
        runner = self._way.run if self._way else None
        if isinstance(runner, PackedRunner) and self._device.type == "cpu":
            return runner.row_tokens
        return None  # on a GPU all of a batch is one row

    @row_tokens.setter
    def row_tokens(self, tokens: int | None) -> None:
        self._row_tokens = tokens
        if tokens and self._way is not None and isinstance(self._way.run, PackedRunner):
            self._way.run.row_tokens = tokens

    @property
    def padding_tokens(self) -> int:
        """See `Engine`."""
        return 0 if self._way is None else self._way.run.padding_tokens

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
        self._way = self._as_proven(max_length) or self._proven(max_length)
        self.row_tokens = self._row_tokens
        with step("warm_up"):
            self._run = self._graphed(self._way)
            warm_up(self.predict, _WARMUP_LENGTHS, max_length, self._way.ids.text)
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

    def _graphed(self, way: Chosen) -> Runner | GraphedRunner:
        """Its runner, with CUDA graphs where they are right and faster here."""
        if self._device.type != "cuda" or not isinstance(way.run, PackedRunner):
            return way.run
        run, remark = graph_trial.faster(way.run, way.ids, parity.MAX_DRIFT[self._dtype])
        logger.info(remark)
        self._graphs = (remark,)
        return run

    def _as_proven(self, max_length: int) -> Chosen | None:
        """As an earlier start found it right; None where there was none."""
        for found in self._kept.read(self._circumstances()):
            try:
                return as_proven(
                    self._load, self._device, self._dtype, max_length, Proof.from_json(found)
                )
            except Exception as exc:
                self._kept.damaged(exc)
                gc.collect()  # before the weights are read again
        return None

    def _proven(self, max_length: int) -> Chosen:
        packing = self._engine_settings.packing
        chosen = choose_way(self._load, self._device, self._dtype, packing, max_length)
        # The key anew: a model from the hub has its files here only now.
        self._kept.write(self._circumstances(), asdict(chosen.proof))
        return chosen

    def _load(self) -> Loaded:
        return load(self._model_settings)

    def _circumstances(self) -> dict[str, Any] | None:
        key = circumstances(self._model_settings, self._engine_settings, self._num_threads)
        return key and {**key, "device": str(self._device.type), "dtype": self._dtype}

    def predict(self, batch: Encoded) -> Logits:
        way = self._loaded()
        return way.ids.guarded(self._run or way.run, batch, way.proof.n_labels)

    def info(self) -> EngineInfo:
        way = self._loaded()
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
            batching=way.batching,
            batching_reason=way.proof.reason,
            drift=way.proof.drift,
            remarks=(*way.proof.remarks, *self._graphs),
        )

    def _loaded(self) -> Chosen:
        if self._way is None:
            raise RuntimeError("the engine is not loaded")
        return self._way
