"""What engines that run a converted model have in common; each adds `convert` and `open_runner`."""

from __future__ import annotations

import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from deployments import installing
from deployments.engines import parity
from deployments.engines.artefacts import converted
from deployments.engines.base import EngineUnavailable, warm_up
from deployments.engines.ids import Ids
from deployments.engines.padding import Int64, group_by_length, pad
from deployments.model.probe import calibration_batch
from deployments.model.source import model_info
from deployments.pipeline.types import Encoded, EngineInfo, Float32, Logits
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

# A right conversion is within rounding of the model; one with a shape or a mask frozen into it
# is not.
CONVERSION_TOLERANCE = 1e-3
_WARMUP_LENGTHS = (8, 32, 128)
_NOTES = "notes.json"

Rows = Mapping[str, Int64]
"""Padded rows of some texts, as `padding.pad` makes them."""


class Runner(Protocol):
    """A compiled graph. `input_names`: what it takes of `Rows`."""

    input_names: frozenset[str]

    def run(self, groups: Sequence[Rows]) -> list[Float32]:
        """Logits [n, labels] of each group, in their order."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What the model said when it was converted, kept beside the graph.

    ids: what it reads. answers: transformers' own logits in float32 of `parity.random_texts(ids)`,
    each text alone. remarks: of its directory.
    """

    ids: Ids
    answers: Float32
    pad_token_id: int
    remarks: tuple[str, ...]

    def write(self, directory: Path) -> None:
        content = {
            "ids": self.ids.to_json(),
            "answers": self.answers.tolist(),
            "pad_token_id": self.pad_token_id,
            "remarks": self.remarks,
        }
        (directory / _NOTES).write_text(json.dumps(content), encoding="utf-8")

    @staticmethod
    def read(directory: Path) -> Notes:
        kept = json.loads((directory / _NOTES).read_text(encoding="utf-8"))
        return Notes(
            Ids.from_json(kept["ids"]),
            np.asarray(kept["answers"], np.float32),
            kept["pad_token_id"],
            tuple(kept["remarks"]),
        )


class GraphEngine(ABC):
    """A model that was converted from its torch class once, then runs without torch.

    Padded rows, grouped by length.

    Raises (from `load`):
        EngineUnavailable: not installed, no such device or dtype, or the class can't be converted.
        ModelNotFound: the weights can't be read, don't fit the config, or don't classify.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]  # that must be installed; their versions are in `/info`
    int8_modules: ClassVar[tuple[str, ...]]  # for int8, these too
    dtypes: ClassVar[tuple[str, ...]]
    # What one more forward pass costs, in tokens, and the padded size beyond which none is faster.
    overhead_tokens: ClassVar[int]
    max_group_tokens: ClassVar[int]

    def __init__(self, model: ModelSettings, engine: EngineSettings, num_threads: int) -> None:
        self.model_settings = model
        self.engine_settings = engine
        self.num_threads = num_threads
        self.dtype = engine.dtype
        self._pad_token_id = 0
        self._drift = 0.0
        self._notes: Notes | None = None
        self._runner: Runner | None = None

    @abstractmethod
    def convert(self, model: Any, max_length: int, directory: Path) -> None:
        """Write the converted model into the empty directory."""

    @abstractmethod
    def open_runner(self, directory: Path) -> Runner:
        """Compile what `convert` wrote, for `num_threads` threads."""

    def load(self) -> None:
        self._refuse_what_is_not_here()
        self._runner, self._notes = converted(
            self.model_settings,
            self.name,
            self.stored_dtype,
            convert=self._convert,
            load=lambda directory: (self.open_runner(directory), Notes.read(directory)),
        )
        ids = self._notes.ids
        self._pad_token_id = self._notes.pad_token_id
        answers = self._run(parity.random_texts(ids))
        self._drift = parity.drift(answers, self._notes.answers)
        if self._drift > parity.MAX_DRIFT[self.dtype]:
            raise EngineUnavailable(
                f"in {self.dtype} {self.name}'s logits are {self._drift:.2g} away from the model's "
                "own. Set args.engine.dtype: float32, or name: torch."
            )
        warm_up(self.predict, _WARMUP_LENGTHS, ids.max_tokens, ids.text)

    @property
    def stored_dtype(self) -> str:
        """Of the converted weights: bfloat16 is made of float32 when the graph is compiled."""
        return "int8" if self.dtype == "int8" else "float32"

    def predict(self, batch: Encoded) -> Logits:
        notes = self._notes
        assert notes is not None  # noqa: S101 - load() comes first
        return notes.ids.guarded(self._run, batch, notes.answers.shape[1])

    def _run(self, batch: Encoded) -> Float32:
        assert self._runner is not None  # noqa: S101 - load() comes first
        texts = batch.split()
        groups = group_by_length(batch.lengths, self.overhead_tokens, self.max_group_tokens)
        rows = [pad([texts[i] for i in group], self._pad_token_id) for group in groups]
        answers = self._runner.run(rows)
        out = np.empty((len(batch), answers[0].shape[1]), np.float32)
        for group, values in zip(groups, answers, strict=True):
            out[group] = values
        return out

    def info(self) -> EngineInfo:
        return EngineInfo(
            engine=self.name,
            device="cpu",
            dtype=self.dtype,
            num_threads=self.num_threads,
            versions={name: metadata.version(name) for name in self._needed_modules()},
            batching="padded",
            batching_reason=f"{self.name} runs padded rows, grouped by length",
            drift=self._drift,
            remarks=self._notes.remarks if self._notes else (),
        )

    def calibration_rows(self) -> list[Rows]:
        """One row per text for quantisation to look at.

        All of them: a quarter saves little time, and the logits drift further.
        """
        texts = calibration_batch(self.model_settings).split()
        return [pad([text], self._pad_token_id) for text in texts]

    def _convert(self, directory: Path) -> None:
        import torch

        from deployments.engines.forward import ids_of
        from deployments.engines.loading import load
        from deployments.engines.padded import PaddedRunner

        torch.set_num_threads(self.num_threads)
        loaded = load(self.model_settings)
        model, max_length = loaded.model, model_info(self.model_settings).max_length
        self._pad_token_id = int(getattr(model.config, "pad_token_id", None) or 0)
        try:
            ids = ids_of(model, max_length)
            texts = parity.random_texts(ids)
            answers = parity.one_by_one(PaddedRunner(model, alone=True), texts)
            with warnings.catch_warnings():
                # What tracing can't follow is found by `check_conversion`, not by reading these.
                warnings.simplefilter("ignore")
                self.convert(model, max_length, directory)
        except (EngineUnavailable, OSError):
            raise
        except Exception as exc:
            logger.debug("conversion failed", exc_info=True)
            raise EngineUnavailable(
                f"{self.name} can't convert {self.model_settings.id!r} ({type(exc).__name__}). "
                "Set args.engine.name to torch, or auto."
            ) from exc
        Notes(ids, answers, self._pad_token_id, loaded.remarks).write(directory)

    def _refuse_what_is_not_here(self) -> None:
        if self.dtype not in self.dtypes:
            raise EngineUnavailable(
                f"args.engine.dtype is {self.dtype}; {self.name} runs {', '.join(self.dtypes)}."
            )
        if self.engine_settings.device not in {"auto", "cpu"}:
            raise EngineUnavailable(
                f"args.engine.device is {self.engine_settings.device}; {self.name} runs on cpu. "
                "Set device: cpu, or name: torch."
            )
        for module in self._needed_modules():
            if find_spec(module) is None:
                raise EngineUnavailable(
                    f"args.engine.name is {self.name}, and {module} is not installed. "
                    f"Install it: {installing(self.name)}."
                )

    def _needed_modules(self) -> tuple[str, ...]:
        return self.modules + (self.int8_modules if self.dtype == "int8" else ())


def example_rows(model: Any, shape: tuple[int, int], seed: int = 0) -> dict[str, Int64]:
    """Random texts for tracing and checking: what the model's class takes of `Rows`.

    Their lengths differ, so that nothing about the mask is constant.
    """
    from deployments.engines.forward import ids_of, reads_zero_types, takes

    n, longest = shape
    lengths = [max(longest - i, 1) for i in range(n)]
    texts = ids_of(model, longest).texts(lengths, seed)
    if not reads_zero_types(model):
        texts = Encoded(texts.input_ids, texts.lengths)
    rows = pad(texts.split(), int(getattr(model.config, "pad_token_id", None) or 0))
    names = [name for name in ("input_ids", "attention_mask") if takes(model, name)]
    if reads_zero_types(model):
        names.append("token_type_ids")
    return {name: rows[name] for name in names}


def check_conversion(
    model: Any, max_length: int, run: Callable[[dict[str, Int64]], Float32]
) -> None:
    """Hold the converted graph against the model on shapes that tracing did not see.

    run: rows → logits [n, labels].

    Raises:
        EngineUnavailable: they differ.
    """
    import torch

    from deployments.engines.forward import ids_of, logits_of
    from deployments.engines.padded import PaddedRunner

    texts = parity.random_texts(ids_of(model, max_length))
    alone = parity.one_by_one(PaddedRunner(model, alone=True), texts)
    if parity.drift(PaddedRunner(model)(texts), alone) > CONVERSION_TOLERANCE:
        raise EngineUnavailable(
            f"answers of {type(model).__name__} depend on how far a text is padded. "
            "Set args.engine.name to torch, which pads none of them."
        )
    for seed, (n, length) in enumerate(((1, 1), (1, 5), (3, 19), (2, 40))):
        rows = example_rows(model, (n, min(length, max_length)), seed)
        with torch.inference_mode():
            expected = logits_of(model(**{k: torch.from_numpy(v) for k, v in rows.items()})).numpy()
        drift = float(np.abs(run(rows) - expected).max())
        if not drift <= CONVERSION_TOLERANCE:
            raise EngineUnavailable(
                f"{type(model).__name__} converts wrongly: on {n} texts of {length} tokens its "
                f"logits are {drift:.2g} away. Set args.engine.name to torch."
            )
