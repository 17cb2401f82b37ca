"""Ways of running a model in torch, from the fastest to the plainest, and the first that is right.

Right: it answers some texts as transformers' own forward does in float32, each text alone. Whatever
else happens, an exception included, leads to the next way.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from deployments.engines import parity
from deployments.engines.base import EngineUnavailable, ModelBroken
from deployments.engines.forward import Unchanged, ids_of
from deployments.engines.ids import Ids
from deployments.engines.linear import accelerate
from deployments.engines.loading import Loaded
from deployments.engines.packed import CannotPack, PackedRunner
from deployments.engines.padded import PaddedRunner
from deployments.pipeline.types import Encoded, Float32

logger = logging.getLogger(__name__)

Runner = PackedRunner | PaddedRunner

_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
# Texts that are asked twice, the shortest.
_REPEATED = 3


@dataclass(frozen=True)
class Way:
    """How texts share a pass. mixes: texts of several lengths share one, padded or packed."""

    batching: str
    make: Callable[[Any], Runner]
    mixes: bool


WAYS = (
    Way("packed", PackedRunner, mixes=True),
    Way("packed", partial(PackedRunner, stock=True), mixes=True),
    Way("padded", PaddedRunner, mixes=True),
    Way("one length", partial(PaddedRunner, overhead_tokens=0), mixes=False),
    Way("one by one", partial(PaddedRunner, alone=True), mixes=False),
)
"""From the fastest to the plainest. The last is what transformers' own pipeline does."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found right. way: its place in `WAYS`. fast_layers: whether with faster linear ones.
    changes: whether a pass changes the model. reason: why not packed. drift: of `parity.drift`, in
    its dtype."""

    way: int
    fast_layers: bool
    changes: bool
    reason: str | None
    drift: float
    n_labels: int
    remarks: tuple[str, ...]

    @staticmethod
    def from_json(kept: dict[str, Any]) -> Proof:
        """Raises TypeError where `kept` is something else."""
        return Proof(**{**kept, "remarks": tuple(kept.get("remarks", ()))})


@dataclass(frozen=True)
class Chosen:
    """The way that is taken, ready to run."""

    run: Runner
    ids: Ids
    proof: Proof

    @property
    def batching(self) -> str:
        return WAYS[self.proof.way].batching


def choose_way(
    load: Callable[[], Loaded],
    device: torch.device,
    dtype: str,
    packing: bool,
    max_length: int,
) -> Chosen:
    """The fastest way that is right, on this device and in this dtype.

    Raises:
        EngineUnavailable: none is, or there are no 8-bit products here.
        whatever `load` raises.
    """
    return _Search(load, device, dtype, packing, max_length).first_that_is_right()


def as_proven(
    load: Callable[[], Loaded], device: torch.device, dtype: str, max_length: int, proof: Proof
) -> Chosen:
    """The way that an earlier start proved, of the same weights by the same packages on such a
    machine.

    Raises:
        whatever `load` and the way raise: it is to be proven anew.
    """
    model = load().model
    ids = ids_of(model, max_length)
    runner = WAYS[proof.way].make(model)
    _convert(runner, device, dtype, proof.fast_layers)
    if isinstance(runner, PaddedRunner) and proof.changes:
        runner.unchanged = Unchanged(model)
    return Chosen(runner, ids, proof)


class _Search:
    def __init__(
        self,
        load: Callable[[], Loaded],
        device: torch.device,
        dtype: str,
        packing: bool,
        max_length: int,
    ) -> None:
        self._load = load
        self._device = device
        self._dtype = dtype
        self._packing = packing
        loaded = load()
        self._model: Any = loaded.model
        self._remarks = list(loaded.remarks)
        self._class = type(self._model).__name__
        self._ids = ids_of(self._model, max_length)
        # Whether a pass changed the model: its next answer may depend on the texts before.
        self._changes = False
        self._texts, self._reference = self._ask_transformers()
        self._one_length = _by_length(self._model.config)
        # Of packing, as `/info` shows it, and of whatever was tried last.
        self._why_not_packed: str | None = None
        self._why_not = ""

    def first_that_is_right(self) -> Chosen:
        for place, way in enumerate(WAYS):
            if not self._is_right_in_float32(way):
                continue
            for fast_layers in self._layers():
                runner, drift = self._try(way, fast_layers)
                if runner is not None:
                    return self._chosen(place, fast_layers, runner, drift)
        raise EngineUnavailable(
            f"{self._class} runs in no way here that gives transformers' own answers in "
            f"{self._dtype} on {self._device.type}: {self._why_not}. "
            + (
                "Set args.model.id to another model."
                if self._dtype == "float32"
                else "Set args.engine.dtype: float32, or auto."
            )
        )

    def _ask_transformers(self) -> tuple[Encoded, Float32]:
        """The texts that transformers' own forward can answer, one a pass, and its answers."""
        run = PaddedRunner(self._model, alone=True)
        before = Unchanged(self._model)
        texts, answers = [], []
        failure = "no text"
        for text in parity.random_texts(self._ids).split():
            try:
                answers.append(run(text))
                texts.append(text)
            except Exception as exc:  # Funnel on one token: no request has so few
                logger.debug("transformers fails on %d tokens", len(text.input_ids), exc_info=True)
                failure = f"{type(exc).__name__} on {text.total_tokens} tokens"
            self._changes |= before.undo()
        if not texts:
            raise EngineUnavailable(
                f"transformers' own {self._class} fails on plain token ids ({failure}): it reads "
                "more than a text, or its config.json doesn't fit it. Set args.model.id to another "
                "model."
            )
        reference = np.concatenate(answers)
        if not np.isfinite(reference).all():
            raise ModelBroken(
                f"the model gives no finite number for a harmless text ({self._class}): its "
                "weights are damaged. Save it again."
            )
        again = np.concatenate([run(text) for text in texts[:_REPEATED]])
        before.undo()
        if parity.drift(again, reference[:_REPEATED]) > parity.MAX_DRIFT["float32"]:
            raise EngineUnavailable(
                f"{self._class} answers the same text otherwise each time: it draws random numbers "
                "in each pass. Set args.model.id to another model."
            )
        return Encoded.concat(texts), reference

    def _layers(self) -> tuple[bool, ...]:
        """Whether with faster linear layers, the best first."""
        if self._dtype == "int8":
            return (True,)
        return (
            (True, False) if self._device.type == "cpu" and self._dtype != "float16" else (False,)
        )

    def _is_right_in_float32(self, way: Way) -> bool:
        """With the model's own layers, on the CPU."""
        if reason := self._unsuitable(way):
            self._note(reason)
            return False
        model = self._fresh()
        before = Unchanged(model)
        try:
            runner = way.make(model)
        except CannotPack as exc:
            self._note(str(exc))
            return False
        except Exception as exc:
            self._give_up(f"its class can't be {way.batching} ({type(exc).__name__})")
            return False
        if isinstance(runner, PaddedRunner):
            runner.unchanged = before
        try:
            drift = parity.drift(runner(self._texts), self._reference)
        except _OUT_OF_MEMORY:
            raise
        except CannotPack as exc:
            self._give_up(str(exc))
        except Exception as exc:  # a class may fail in any way on what it wasn't made for
            self._give_up(f"its class can't be {way.batching} ({type(exc).__name__})")
        else:
            if drift <= parity.MAX_DRIFT["float32"]:
                return True
            kind = (
                "packed logits differ from padded ones"
                if way.batching == "packed"
                else (f"{way.batching} logits differ from those of one text a pass")
            )
            self._give_up(f"{kind} by {drift:.2g}")
        return False

    def _unsuitable(self, way: Way) -> str | None:
        if way.batching == "packed" and not self._packing:
            return "args.engine.packing is false"
        if way.mixes and self._changes:
            return "a pass changes the model by the length of its texts"
        if way.mixes and self._one_length:
            return f"{self._one_length} counts positions by the longest text of a pass"
        return None

    def _try(self, way: Way, fast_layers: bool) -> tuple[Runner | None, float]:
        """The runner on its device and in its dtype, if it is right there; and its drift."""
        layers = "faster" if fast_layers else "plain"
        model = self._fresh()
        try:
            runner = way.make(model)
            _convert(runner, self._device, self._dtype, fast_layers)
            if isinstance(runner, PaddedRunner) and self._changes:
                runner.unchanged = Unchanged(model)
            drift = parity.drift(runner(self._texts), self._reference)
        except (EngineUnavailable, *_OUT_OF_MEMORY):
            raise
        except Exception as exc:
            self._give_up(f"{type(exc).__name__} with {layers} linear layers")
        else:
            if drift <= parity.MAX_DRIFT[self._dtype]:
                return runner, drift
            self._give_up(
                f"{self._dtype} logits are off by {drift:.2g} with {layers} linear layers"
            )
        logger.warning("%s %s: %s", self._class, way.batching, self._why_not)
        if fast_layers and self._dtype != "int8":
            self._remarks.append(f"Linear layers stay plain: {self._why_not}.")
        return None, float("inf")

    def _fresh(self) -> Any:
        """The model as its files have it: ways that failed may have left it otherwise."""
        if self._model is None:
            gc.collect()
            self._model = self._load().model
        return self._model

    def _note(self, reason: str) -> None:
        self._why_not = reason
        if self._why_not_packed is None:
            self._why_not_packed = reason

    def _give_up(self, reason: str) -> None:
        """Notes the reason; the next way starts from the files."""
        logger.debug("%s: %s", self._class, reason, exc_info=True)
        self._note(reason)
        self._model = None

    def _chosen(self, place: int, fast_layers: bool, runner: Runner, drift: float) -> Chosen:
        way, remarks = WAYS[place], self._remarks
        if not way.mixes:
            remarks.append(f"Texts run {way.batching}: {self._why_not}.")
        proof = Proof(
            place,
            fast_layers,
            self._changes,
            None if way.batching == "packed" else self._why_not_packed,
            drift,
            self._reference.shape[1],
            tuple(remarks),
        )
        return Chosen(runner, self._ids, proof)


def _convert(runner: Runner, device: torch.device, dtype: str, fast_layers: bool) -> None:
    """Brings it to the device and into the dtype."""
    model = runner.model
    encoder = runner.encoder if isinstance(runner, PackedRunner) else model.base_model
    if isinstance(runner, PackedRunner):
        runner.release()
    if dtype != "int8":
        kind = getattr(torch, dtype)
        model.to(device, kind)
        encoder.to(device, kind)
    if fast_layers and not accelerate(encoder, dtype) and dtype == "int8":
        plain = any(type(module) is torch.nn.Linear for module in encoder.modules())
        why = (
            "this build of torch or this CPU has no 8-bit products"
            if plain or isinstance(runner, PackedRunner)
            else f"{type(model).__name__} has no linear layers for them"
        )
        raise EngineUnavailable(f"args.engine.dtype is int8, and {why}. Set dtype: auto.")


def _by_length(config: Any) -> str | None:
    """The kind of rotary positions that depend on the longest text of a pass, if it has such."""
    ropes = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for rope in (ropes, *ropes.values()) if isinstance(ropes, dict) else ():
        kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
        if kind in ("dynamic", "longrope"):
            return f"rope_type {kind}"
    return None
