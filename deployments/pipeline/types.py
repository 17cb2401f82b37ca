"""What travels between the stages: plain arrays, tuples and frozen dataclasses, cheap to pickle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from deployments.pipeline.errors import ServiceError

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Deadlines = Float64
"""float64 [n]: until when each text is waited for, by the event loop's clock (`loop.time()`).

Made once, where a call enters the process. Only what crosses to another process is told the seconds
left, as clocks differ.
"""

Answer = dict[str, Any]
"""One classified text as JSON-ready values, or `{"error": {...}}` in the place of a bad one."""


class TimedAnswer(Answer):
    """An answer that knows how long its micro-batch took, and by which version of the model; JSON
    shows none of it.

    tokenize_s, model_s: of the whole micro-batch, and of the passes in which its texts were.
    """

    __slots__ = ("model", "model_s", "tokenize_s")

    tokenize_s: float
    model_s: float
    model: str

    @staticmethod
    def of(answer: Answer, tokenize_s: float, model_s: float, model: str = "") -> TimedAnswer:
        """The same values. An assignment each: an `__init__` would cost as much again."""
        timed = TimedAnswer(answer)
        timed.tokenize_s = tokenize_s
        timed.model_s = model_s
        timed.model = model
        return timed


Activation = Literal["softmax", "sigmoid"]
"""Logits → scores."""

ModelStage = Literal["first", "second", "shadow"]
"""Where two models answer: the smaller and the larger one of a cascade, and one on trial."""

Priority = Literal["interactive", "bulk"]

WEIGHTS: dict[Priority, float] = {"interactive": 9.0, "bulk": 1.0}
"""Shares of the model where both wait: bulk never stands in the way, and never stands still."""

BULK_FROM_TEXTS = 33
"""Requests with as many texts are bulk unless they say otherwise."""


class Flow(NamedTuple):
    """Texts that take turns with those of other flows, and among themselves stay in order.

    client: who asks, "" where nobody can tell. request: a number of its own for each bulk request,
    so that a short list need not wait for a long one; 0 for all interactive requests of a client.
    """

    priority: Priority = "interactive"
    client: str = ""
    request: int = 0


DEFAULT_FLOW = Flow()

FlowRuns = list[tuple[Flow, int]]
"""Flows of n texts in order, each with how many texts in a row are its."""

# Bulk requests of several ingress replicas meet in one classifier.
_request_numbers = count(random.getrandbits(60))


def flow_of(priority: Priority | None, client: str, n_texts: int) -> Flow:
    """The flow of one request."""
    if priority is None:
        priority = "interactive" if n_texts < BULK_FROM_TEXTS else "bulk"
    if priority == "bulk":
        return Flow("bulk", client, next(_request_numbers))
    return Flow("interactive", client) if client else DEFAULT_FLOW


def runs_of(flows: Sequence[Flow]) -> FlowRuns | None:
    """None where all are the default one, which is the usual case and costs nothing to send."""
    if all(flow is DEFAULT_FLOW for flow in flows):
        return None
    return [(flow, len(list(run))) for flow, run in groupby(flows)]


def only(places: Sequence[int], flows: FlowRuns | None) -> FlowRuns | None:
    """The flows of the texts at these places."""
    if flows is None:
        return None
    by_text = [flow for flow, n in flows for _ in range(n)]
    return runs_of([by_text[i] for i in places])


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose per request. `None` means the service's default.

    label_ids: the answer says, beside `scores` and in their order, the number of each label in the
    model's config.json. truncation_side: the end that a text which is too long loses; None leaves
    it to the model's tokenizer. activation: shows scores as this makes them of the logits.
    long_text: what becomes of a text that is too long, where truncation is allowed.
    stage: which of several models is asked; None: the only one. unsure_below: the answer of a
    single-label model has `unsure`, whether its best calibrated score is below. No caller sets
    these two.
    """

    top_k: int | None = None
    raw_scores: bool = False
    threshold: float | None = None
    truncation: bool = True
    label_ids: bool = False
    truncation_side: Literal["left", "right"] | None = None
    activation: Activation | None = None
    long_text: Literal["truncate", "window"] | None = None
    stage: ModelStage | None = None
    unsure_below: float | None = None

    def in_windows(self, default: str) -> bool:
        """Whether a text that is too long is read in windows. default: what the service does."""
        return (self.long_text or default) == "window" and self.truncation


@dataclass(frozen=True, slots=True)
class TextInput:
    """One text to classify, with its second half where the model reads pairs.

    token_ids: what the model is to read in place of a text, as the caller's own tokenizer made it,
    marks and all; `text` then is the ids written out.
    Its repr shows no text: it may end up in a log.
    """

    text: str = field(repr=False)
    text_pair: str | None = field(default=None, repr=False)
    options: Options = Options()
    flow: Flow = DEFAULT_FLOW
    token_ids: tuple[int, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of n texts, concatenated: no padding and no tensors.

    input_ids: int32 [total_tokens]; lengths: int32 [n];
    token_type_ids: int32 [total_tokens], or None where all are zero.
    model: version of the `ModelParts` whose tokenizer made them. also: the same texts, as another
    model reads them that lives beside it during an update.
    Its repr shows no ids: they are the text again.
    """

    input_ids: Int32 = field(repr=False)
    lengths: Int32
    token_type_ids: Int32 | None = None
    model: str = ""
    also: Encoded | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def total_tokens(self) -> int:
        return len(self.input_ids)

    def of(self, model: str) -> Encoded | None:
        """The texts as this model reads them, or None."""
        found: Encoded | None = self
        while found is not None and found.model != model:
            found = found.also
        return found

    def split(self) -> list[Encoded]:
        """One Encoded per text, as views into the same memory."""
        ends = np.cumsum(self.lengths)
        starts = ends - self.lengths
        types = self.token_type_ids
        also: Sequence[Encoded | None] = (
            [None] * len(self) if self.also is None else self.also.split()
        )
        return [
            Encoded(
                self.input_ids[start:end],
                self.lengths[i : i + 1],
                None if types is None else types[start:end],
                self.model,
                also[i],
            )
            for i, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]

    @staticmethod
    def concat(parts: Sequence[Encoded]) -> Encoded:
        """The texts of all parts, in order. All are made for the same models."""
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
        also = [part.also for part in parts if part.also is not None]
        return Encoded(
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            types,
            parts[0].model,
            Encoded.concat(also) if also else None,
        )


class Load(NamedTuple):
    """How a Classifier stands, said with each answer.

    replica: its name. tokens_per_s: what it reads in full batches; 0 where that is not known yet.
    queued_tokens: how many wait there for the model. start_s: how long its start took, from Ray's
    process to its first answer. passes, read_texts, read_tokens: what it has done since then.
    """

    replica: str
    tokens_per_s: float
    queued_tokens: int
    start_s: float = 5.0
    passes: int = 0
    read_texts: int = 0
    read_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Logits:
    """The model's answer for n texts. values: float32 [n, labels].

    errors: index of a text → why it has no answer; its row in `values` is meaningless.
    model: version of the `ModelParts` that decode it; a Classifier names its own, and says how it
    stands by `load`. model_s: how long the forward passes took in which these texts were.
    """

    values: Float32
    errors: dict[int, ServiceError] | None = None
    model: str = ""
    load: Load | None = None
    model_s: float = 0.0

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class OtherModel:
    """What a Classifier answers to ids that are not for its model. version: of its own parts.

    A value and no error: nothing is lost, and no text is to blame.
    """

    version: str


@dataclass(frozen=True, slots=True)
class Predicted:
    """What became of n texts. While an update runs, two models may have answered them.

    parts: the texts' places, and their logits in that order. errors: place → why there is no
    answer. strange: place → version of the model that is there, and that its ids are not for.
    """

    parts: tuple[tuple[Sequence[int], Logits], ...] = ()
    errors: dict[int, ServiceError] = field(default_factory=dict)
    strange: dict[int, str] = field(default_factory=dict)

    @staticmethod
    def of(answer: Logits | OtherModel, n_texts: int) -> Predicted:
        """What one call for `n_texts` gave."""
        if isinstance(answer, OtherModel):
            return Predicted(strange=dict.fromkeys(range(n_texts), answer.version))
        if answer.errors and len(answer.errors) == n_texts:
            return Predicted(errors=answer.errors)
        return Predicted(((range(n_texts), answer),))

    def at(self, places: Sequence[int]) -> Predicted:
        """The same, of texts that stand at these places among others."""
        return Predicted(
            tuple(([places[i] for i in own], logits) for own, logits in self.parts),
            {places[i]: error for i, error in self.errors.items()},
            {places[i]: version for i, version in self.strange.items()},
        )

    @staticmethod
    def joined(several: Sequence[Predicted]) -> Predicted:
        """All of them, with one part for each model; no place stands in two."""
        by_model: dict[str, list[tuple[Sequence[int], Logits]]] = {}
        for part in (part for one in several for part in one.parts):
            by_model.setdefault(part[1].model, []).append(part)
        return Predicted(
            tuple(_one_part(parts) for parts in by_model.values()),
            {i: error for one in several for i, error in one.errors.items()},
            {i: version for one in several for i, version in one.strange.items()},
        )


def _one_part(parts: list[tuple[Sequence[int], Logits]]) -> tuple[Sequence[int], Logits]:
    if len(parts) == 1:
        return parts[0]
    places: list[int] = []
    errors: dict[int, ServiceError] = {}
    for own, logits in parts:
        errors |= {len(places) + row: error for row, error in (logits.errors or {}).items()}
        places += own
    values = np.concatenate([logits.values for _, logits in parts])
    model_s = max(logits.model_s for _, logits in parts)
    return places, Logits(values, errors or None, parts[0][1].model, model_s=model_s)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a model's calibration.json says beside its temperature; None: nothing.

    abstain_below: the score of the best label below which an answer abstains. label_set_from: the
    score from which a label is in the answer's `label_set`. platt: (slope, offset) by label, which
    logits of a multi-label model go through before the sigmoid.
    """

    abstain_below: float | None = None
    label_set_from: float | None = None
    platt: tuple[tuple[float, float], ...] | None = None

    @staticmethod
    def from_json(kept: dict[str, Any]) -> Calibration:
        """Of what `asdict` made. Raises TypeError where `kept` is something else."""
        platt = kept.get("platt")
        pairs = None if platt is None else tuple((slope, offset) for slope, offset in platt)
        return Calibration(**{**kept, "platt": pairs})


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the model is, as `/info` tells it. task: what its head means; see pipeline/tasks/.

    drift: what its drift.json holds, as JSON; see pipeline/drift.py.
    """

    model: str
    revision: str | None
    labels: tuple[str, ...]
    problem_type: str
    max_length: int
    temperature: float
    task: str = "text-classification"
    calibration: Calibration = Calibration()
    drift: str | None = None


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
    batching: str = "packed"  # or "padded", "one length", "one by one"
    batching_reason: str | None = None  # why not packed
    selected_by: str = "config"  # or "measurement", "cache"
    drift: float | None = None
    remarks: tuple[str, ...] = ()
