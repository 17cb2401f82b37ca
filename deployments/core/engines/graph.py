"""What engines that run a converted model have in common; each adds `convert` and `open_runner`."""

from __future__ import annotations

import inspect
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from deployments.core.engines.artefacts import converted
from deployments.core.engines.base import EngineUnavailable, warm_up
from deployments.core.engines.padding import Int64, group_by_length, pad
from deployments.core.engines.probe import calibration_batch
from deployments.core.model_source import ModelNotFound, model_info, read_config
from deployments.core.types import Encoded, EngineInfo, Float32, Logits
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

# A right conversion is within rounding of the model; one with a shape or a mask frozen into it
# is not.
CONVERSION_TOLERANCE = 1e-3
_WARMUP_LENGTHS = (8, 32, 128)

Rows = Mapping[str, Int64]
"""Padded rows of some texts, as `padding.pad` makes them."""


class Runner(Protocol):
    """A compiled graph. `input_names`: what it takes of `Rows`."""

    input_names: frozenset[str]

    def run(self, groups: Sequence[Rows]) -> list[Float32]:
        """Logits [n, labels] of each group, in their order."""


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
        self._runner: Runner | None = None

    @abstractmethod
    def convert(self, directory: Path) -> None:
        """Write the converted model into the empty directory."""

    @abstractmethod
    def open_runner(self, directory: Path) -> Runner:
        """Compile what `convert` wrote, for `num_threads` threads."""

    def load(self) -> None:
        self._refuse_what_is_not_here()
        config = read_config(self.model_settings)
        self._pad_token_id = int(config.get("pad_token_id") or 0)
        self._runner = converted(
            self.model_settings,
            self.name,
            self.stored_dtype,
            convert=self._convert,
            load=self.open_runner,
        )
        limit = model_info(self.model_settings).max_length
        warm_up(self.predict, _WARMUP_LENGTHS, limit, int(config.get("vocab_size") or 1_000))

    @property
    def stored_dtype(self) -> str:
        """Of the converted weights: bfloat16 is made of float32 when the graph is compiled."""
        return "int8" if self.dtype == "int8" else "float32"

    def predict(self, batch: Encoded) -> Logits:
        assert self._runner is not None  # noqa: S101 - load() comes first
        texts = batch.split()
        groups = group_by_length(batch.lengths, self.overhead_tokens, self.max_group_tokens)
        rows = [pad([texts[i] for i in group], self._pad_token_id) for group in groups]
        answers = self._runner.run(rows)
        out = np.empty((len(batch), answers[0].shape[1]), np.float32)
        for group, values in zip(groups, answers, strict=True):
            out[group] = values
        return Logits(out)

    def info(self) -> EngineInfo:
        return EngineInfo(
            engine=self.name,
            device="cpu",
            dtype=self.dtype,
            num_threads=self.num_threads,
            versions={name: metadata.version(name) for name in self._needed_modules()},
            batching="padded",
            batching_reason=f"{self.name} runs padded rows, grouped by length",
        )

    def calibration_rows(self) -> list[Rows]:
        """One row per text for quantisation to look at.

        All of them: a quarter saves little time, and the logits drift further.
        """
        texts = calibration_batch(self.model_settings).split()
        return [pad([text], self._pad_token_id) for text in texts]

    def _convert(self, directory: Path) -> None:
        try:
            with warnings.catch_warnings():
                # What tracing can't follow is found by `check_conversion`, not by reading these.
                warnings.simplefilter("ignore")
                self.convert(directory)
        except (EngineUnavailable, ModelNotFound, OSError):
            raise
        except Exception as exc:
            logger.debug("conversion failed", exc_info=True)
            raise EngineUnavailable(
                f"{self.name} can't convert {self.model_settings.id!r} ({type(exc).__name__}). "
                "Set args.engine.name to torch, or auto."
            ) from exc

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
                    f"Install it with `pip install 'rayclassify[{self.name}]'`."
                )

    def _needed_modules(self) -> tuple[str, ...]:
        return self.modules + (self.int8_modules if self.dtype == "int8" else ())


def example_rows(model: Any, shape: tuple[int, int], seed: int = 0) -> dict[str, Int64]:
    """Random texts for tracing and checking: what the model's class takes of `Rows`.

    Their lengths differ, so that nothing about the mask is constant.
    """
    from deployments.core.engines.padded import reads_zero_types

    rng = np.random.default_rng(seed)
    n, longest = shape
    lengths = np.maximum(longest - np.arange(n, dtype=np.int32), 1)
    ids = rng.integers(0, int(model.config.vocab_size), lengths.sum(), np.int32)
    pad_token_id = int(getattr(model.config, "pad_token_id", None) or 0)
    rows = pad(Encoded(ids, lengths).split(), pad_token_id)
    takes = set(inspect.signature(model.forward).parameters)
    if not reads_zero_types(model):
        takes.discard("token_type_ids")
    return {name: values for name, values in rows.items() if name in takes}


def check_conversion(
    model: Any, max_length: int, run: Callable[[dict[str, Int64]], Float32]
) -> None:
    """Hold the converted graph against the model on shapes that tracing did not see.

    run: rows → logits [n, labels].

    Raises:
        EngineUnavailable: they differ.
    """
    import torch

    from deployments.core.engines import parity
    from deployments.core.engines.padded import PaddedRunner

    texts = parity.random_texts(model.config, max_length, token_types=False)
    padded = PaddedRunner(model)
    if parity.drift(padded(texts), parity.one_by_one(padded, texts)) > CONVERSION_TOLERANCE:
        raise EngineUnavailable(
            f"answers of {type(model).__name__} depend on how far a text is padded. "
            "Set args.engine.name to torch, which pads none of them."
        )
    for seed, (n, length) in enumerate(((1, 1), (1, 5), (3, 19), (2, 40))):
        rows = example_rows(model, (n, min(length, max_length)), seed)
        with torch.inference_mode():
            expected = model(**{k: torch.from_numpy(v) for k, v in rows.items()}).logits.numpy()
        drift = float(np.abs(run(rows) - expected).max())
        if not drift <= CONVERSION_TOLERANCE:
            raise EngineUnavailable(
                f"{type(model).__name__} converts wrongly: on {n} texts of {length} tokens its "
                f"logits are {drift:.2g} away. Set args.engine.name to torch."
            )
