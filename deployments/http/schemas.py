"""The JSON that goes in and out. Requests are decoded by these structs, OpenAPI is made of them.

Answers arrive as dicts from the other stages; their structs only describe them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from deployments.http.explanation import ExplainInfo, Explanation
from deployments.model.certificate import Certificate
from deployments.pipeline.explaining import (
    DEFAULT_PASSES,
    MAX_PASSES,
    MIN_PASSES,
    Explain,
    Method,
)
from deployments.pipeline.types import BULK_FROM_TEXTS, Calibration, Options, Priority

# Equal options are one object, which pickle sends once per micro-batch instead of once per text.
_options = lru_cache(maxsize=256)(Options)

MAX_TIMEOUT_MS = 86_400_000
"""A day; what a request may name, while `args.limits.request_timeout_s` is what it can get."""

SCHEMA_REF = "#/components/schemas/{name}"


class ClassifyRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One text, or a list of texts, with the options that hold for all of them."""

    # Items of a list are checked one by one, so that a bad one cannot fail the others.
    text: Annotated[
        str | list[Any],
        Meta(description="The text to classify, or a list of texts."),
    ]
    text_pair: Annotated[
        str | list[Any] | None,
        Meta(
            description="The second half, for models that read pairs: a text, or a list as long "
            "as `text`."
        ),
    ] = None
    top_k: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="How many labels `scores` holds, best first; null: the service's choice."),
    ] = None
    truncation: Annotated[
        bool,
        Meta(description="Cut texts that are too long for the model; false refuses them instead."),
    ] = True
    long_text: Annotated[
        Literal["truncate", "window", "error"] | None,
        Meta(
            description="What becomes of a text that is too long: `truncate` cuts it, `window` "
            "reads all of it in windows, `error` refuses it. null: `truncation` decides, and where "
            "that is true the service."
        ),
    ] = None
    raw_scores: Annotated[
        bool, Meta(description="Scores as the model gives them, before softmax or sigmoid.")
    ] = False
    threshold: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Multi-label models: a label counts from this score up, 0 to 1."),
    ] = None

    timeout_ms: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_MS)] | None,
        Meta(
            description="Answer within this time or not at all (408); at most the service's own "
            "limit, which is also the default. The header `X-Timeout-Ms` says the same."
        ),
    ] = None
    priority: Annotated[
        Priority | None,
        Meta(
            description="`interactive` goes before `bulk`, which keeps a tenth of the model. By "
            f"default requests of {BULK_FROM_TEXTS} texts or more are bulk. Also the header "
            "`X-Priority`."
        ),
    ] = None
    explain: Annotated[
        bool,
        Meta(
            description="Say also what each part of the text added to its label; POST /explain "
            "has more options. Only where the service explains."
        ),
    ] = False

    @property
    def how(self) -> Explain | None:
        """How the answers are to be explained, if at all."""
        return Explain() if self.explain else None

    @property
    def options(self) -> Options:
        asked = self.long_text
        if asked is None:
            return _options(self.top_k, self.raw_scores, self.threshold, self.truncation)
        truncation = asked != "error"
        how = None if asked == "error" else asked
        return _options(self.top_k, self.raw_scores, self.threshold, truncation, long_text=how)

    def __repr__(self) -> str:
        return "ClassifyRequest(...)"  # a repr may end up in a log


class ExplainRequest(ClassifyRequest, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One text, or a few, whose answers are to be explained."""

    target: Annotated[
        str | None,
        Meta(description="The label to explain; null: the one answered."),
    ] = None
    method: Annotated[
        Method,
        Meta(description="How; `auto` takes the most faithful one that is installed."),
    ] = "auto"
    passes: Annotated[
        Annotated[int, Meta(ge=MIN_PASSES, le=MAX_PASSES)] | None,
        Meta(
            description=f"Forward passes at most; null: {DEFAULT_PASSES}, or the service's limit."
        ),
    ] = None

    @property
    def how(self) -> Explain:
        return Explain(self.target, self.method, self.passes)

    def __repr__(self) -> str:
        return "ExplainRequest(...)"


class Deciding(Struct):
    """The window that says most of the label. start, end: characters of the text, from 0."""

    index: int
    start: int
    end: int


class Windows(Struct):
    """How a long text was read."""

    count: int
    pooling: str
    deciding: Deciding


class Answered(Struct):
    """The model of a cascade that gave an answer."""

    stage: Annotated[
        Literal["first", "second"],
        Meta(description="`first`: the smaller model, `second`: the other."),
    ]
    unsure: Annotated[
        bool,
        Meta(
            description="Whether the smaller one was unsure, and the larger one could not answer."
        ),
    ]


class Prediction(Struct):
    """What the model says about one text."""

    label: Annotated[str, Meta(description="The best label.")]
    score: Annotated[float, Meta(description="Its score, a probability unless `raw_scores`.")]
    scores: Annotated[dict[str, float], Meta(description="Label to score, best first.")]
    tokens: Annotated[int, Meta(description="Tokens the model read.", ge=0)]
    truncated: Annotated[bool, Meta(description="Whether the text was cut to fit the model.")]
    labels: Annotated[
        list[str] | UnsetType,
        Meta(description="Multi-label models only: every label at or above the threshold."),
    ] = UNSET
    abstained: Annotated[
        bool | UnsetType,
        Meta(description="Where there is a threshold: whether the score is below it."),
    ] = UNSET
    label_set: Annotated[
        list[str] | UnsetType,
        Meta(description="Where it was calibrated: all labels that the text may well have."),
    ] = UNSET
    windows: Annotated[
        Windows | UnsetType,
        Meta(description="Of a text that was read in several windows: what they gave."),
    ] = UNSET
    cascade: Annotated[
        Answered | UnsetType,
        Meta(description="With `args.cascade` only: which of its two models answered."),
    ] = UNSET
    redacted: Annotated[
        int | UnsetType,
        Meta(description="With `args.redaction` only: how many pieces of personal data were cut."),
    ] = UNSET
    explanation: Annotated[
        Explanation | UnsetType,
        Meta(description="Where it was asked for: what each part of the text added to the label."),
    ] = UNSET


class ErrorDetail(Struct):
    """Why there is no answer, how much was too much, and what helps."""

    code: Annotated[str, Meta(description="Stable name of the error.")]
    message: str
    request_id: Annotated[
        str | None, Meta(description="The `X-Request-ID` of the request; quote it in a report.")
    ]


class ErrorAnswer(Struct):
    """Every error, and a bad text's place in a list."""

    error: ErrorDetail


class Health(Struct):
    """The process lives."""

    status: str


class Update(Struct):
    """An update that is under way or has failed; the rest of the answer tells what serves."""

    status: Annotated[str, Meta(description="Ray Serve's word: `DEPLOYING`, `DEPLOY_FAILED`, …")]
    model: Annotated[str | None, Meta(description="The model asked for, where it is another one.")]
    revision: str | None
    message: Annotated[str, Meta(description="Why it does not serve, as far as known.")]


class BesideInfo(Struct):
    """A second model of the application."""

    model: str
    revision: str | None
    fingerprint: str
    engine: str
    device: str
    dtype: str


class LongTextInfo(Struct):
    """What becomes of a text that is too long, where a request does not say."""

    strategy: Literal["truncate", "window"]
    window_tokens: Annotated[
        int | None, Meta(description="Of a window at most; null: the model's.")
    ]
    overlap_tokens: int
    pooling: str
    max_windows: Annotated[int, Meta(description="A text with more is refused.")]


class Info(Struct):
    """The model and how it is run."""

    model: str
    revision: str | None
    fingerprint: Annotated[
        str, Meta(description="Of weights, config and tokenizer: what tells two models apart.")
    ]
    labels: list[str]
    problem_type: str
    max_length: Annotated[int, Meta(description="Tokens a text may have.")]
    temperature: Annotated[float, Meta(description="What logits are divided by.")]
    calibration: Annotated[
        Calibration,
        Meta(description="Of the model's calibration.json; `postprocessing` may say others."),
    ]
    postprocessing: Annotated[
        dict[str, float | None],
        Meta(
            description="As `user_config` of the Postprocessor says now: `threshold`, "
            "`abstain_below` and `label_set_from` (null: as `calibration` says), `top_k`, "
            "`round_scores`."
        ),
    ]
    engine: str
    device: str
    dtype: str
    num_threads: Annotated[int, Meta(description="CPU threads of one Classifier replica.")]
    batching: Annotated[str, Meta(description="`packed`: no padding is computed; else `padded`.")]
    batching_reason: Annotated[str | None, Meta(description="Why not packed.")]
    selected_by: Annotated[str, Meta(description="`config`, `measurement` at start, or `cache`.")]
    max_batch_tokens: Annotated[int, Meta(description="Tokens in one forward pass, at most.")]
    limits: Annotated[
        dict[str, float],
        Meta(
            description="Of a request: `max_body_bytes`, `max_batch_texts`, `max_text_chars` and "
            "`request_timeout_s`."
        ),
    ]
    long_text: Annotated[
        LongTextInfo, Meta(description="As `args.long_text` says; a request may choose another.")
    ]
    dialects: Annotated[
        list[str], Meta(description="Other servers' ways of asking that are answered beside ours.")
    ]
    versions: dict[str, str]
    update: Annotated[
        Update | None,
        Meta(description="What was deployed last, where it does not serve (yet); else null."),
    ]
    certificate: Annotated[
        Certificate | None,
        Meta(description="What was proven of the model at its load: `/info?certificate`."),
    ] = None
    explain: Annotated[
        ExplainInfo | UnsetType,
        Meta(description="With `args.explain` only: its methods and limits."),
    ] = UNSET
    cascade: Annotated[
        BesideInfo | UnsetType | None,
        Meta(description="With `args.cascade` only: the model that answers first; null: not now."),
    ] = UNSET
    shadow: Annotated[
        BesideInfo | UnsetType | None,
        Meta(description="With `args.shadow` only: the model on trial; null: it does not serve."),
    ] = UNSET
