"""What travels between the stages. Plain arrays and frozen dataclasses: cheap to pickle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.core.errors import ServiceError
from deployments.core.flow import DEFAULT_FLOW, Flow

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

Answer = dict[str, Any]
"""One classified text as JSON-ready values, or `{"error": {...}}` in the place of a bad one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose per request. `None` means the service's default."""

    top_k: int | None = None
    raw_scores: bool = False
    threshold: float | None = None
    truncation: bool = True


@dataclass(frozen=True, slots=True)
class TextInput:
    """One text to classify, with its second half where the model reads pairs.

    Its repr shows no text: it may end up in a log.
    """

    text: str = field(repr=False)
    text_pair: str | None = field(default=None, repr=False)
    options: Options = Options()
    flow: Flow = DEFAULT_FLOW


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of n texts, concatenated: no padding and no tensors.

    input_ids: int32 [total_tokens]; lengths: int32 [n];
    token_type_ids: int32 [total_tokens], or None where all are zero.
    Its repr shows no ids: they are the text again.
    """

    input_ids: Int32 = field(repr=False)
    lengths: Int32
    token_type_ids: Int32 | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def total_tokens(self) -> int:
        return len(self.input_ids)

    def split(self) -> list[Encoded]:
        """One Encoded per text, as views into the same memory."""
        ends = np.cumsum(self.lengths)
        starts = ends - self.lengths
        types = self.token_type_ids
        return [
            Encoded(
                self.input_ids[start:end],
                self.lengths[i : i + 1],
                None if types is None else types[start:end],
            )
            for i, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]

    @staticmethod
    def concat(parts: Sequence[Encoded]) -> Encoded:
        """The texts of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        types = None
        if any(part.token_type_ids is not None for part in parts):
            types = np.concatenate(
                [
                    np.zeros_like(part.input_ids)
                    if part.token_type_ids is None
                    else part.token_type_ids
                    for part in parts
                ]
            )
        return Encoded(
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            types,
        )


@dataclass(frozen=True, slots=True)
class Logits:
    """The model's answer for n texts. values: float32 [n, labels].

    errors: index of a text → why it has no answer; its row in `values` is meaningless.
    """

    values: Float32
    errors: dict[int, ServiceError] | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the model is, as `/info` tells it."""

    model: str
    revision: str | None
    labels: tuple[str, ...]
    problem_type: str
    max_length: int
    temperature: float


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """How the model is run on one replica, as `/info` tells it.

    drift: largest difference of a probe's logits from transformers' own in float32, per unit of the
    largest (1 at least); None where it was not measured. remarks: what of the model's directory was
    left aside and why that is harmless, or why a plainer way than the fastest is taken.
    """

    engine: str
    device: str
    dtype: str
    num_threads: int
    versions: dict[str, str]
    batching: str = "packed"  # or "padded"
    batching_reason: str | None = None  # why not packed
    selected_by: str = "config"  # or "measurement", "cache"
    drift: float | None = None
    remarks: tuple[str, ...] = ()
