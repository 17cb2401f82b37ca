"""Everything `serve_config.yaml` may say under `args:`, validated once.

What it may say under `user_config:` is in user_config.py; capacity (replicas, CPUs, GPUs, queues)
stands under `deployments:` in the YAML.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from deployments.model_settings import CascadeSettings as CascadeSettings
from deployments.model_settings import EngineSettings as EngineSettings
from deployments.model_settings import ModelSettings as ModelSettings
from deployments.model_settings import PositiveInt as PositiveInt
from deployments.model_settings import ShadowSettings as ShadowSettings
from deployments.model_settings import Strict as Strict


def _check_header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
        raise ValueError("no header name; write one such as x-forwarded-for")
    return name.lower()


def _check_origin(origin: str) -> str:
    if not re.fullmatch(r"https?://[^/\s*]+", origin):
        raise ValueError("no origin; write scheme and host, as https://shop.example.com")
    return origin


def _check_jwks(place: str) -> str:
    if "://" in place and not place.startswith("https://"):
        raise ValueError("keys fetched without TLS can be anybody's; write a file or an https URL")
    return place


class LimitSettings(Strict):
    """What one request may ask for, and how much may wait."""

    max_body_bytes: PositiveInt = Field(
        default=2_000_000,
        description="Limits a request's body, in bytes; a larger one gets 413. Raise it for "
        "longer lists.",
    )
    max_held_body_bytes: PositiveInt = Field(
        default=250_000_000,
        description="Limits the bytes of all bodies that arrive at one ingress replica; more get "
        "429 with Retry-After. Lower it where memory is short.",
    )
    body_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=20.0,
        description="Limits the seconds a body may take; then 408. Raise it for slow networks.",
    )
    max_batch_texts: PositiveInt = Field(
        default=1_000,
        description="Limits the texts of one request; more get 413. Raise it for longer lists, "
        "and `max_pending_texts` with it.",
    )
    max_text_chars: PositiveInt = Field(
        default=100_000,
        description="Limits the characters of a text; a longer one gets 413. Raise it where "
        "longer documents should be cut rather than refused.",
    )
    max_pending_texts: PositiveInt = Field(
        default=8_192,
        description="Limits the texts that wait in one ingress replica; more get 429 with "
        "Retry-After. Lower it where memory is short; mostly `max_queue_s` comes first.",
    )
    max_queue_s: Annotated[float, Field(gt=0)] = Field(
        default=10.0,
        description="Limits the expected wait for the model, in seconds; a longer one gets 429 "
        "with Retry-After. Raise it where callers would rather wait than come back.",
    )
    request_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=30.0,
        description="Limits the seconds that a request may take; then 408. A caller's "
        "`timeout_ms` asks for less. Lower it where late answers are worth nothing.",
    )
    client_header: Annotated[str, AfterValidator(_check_header)] | None = Field(
        default=None,
        description="Names the header that tells clients apart, for fair turns. Set it behind a "
        "proxy that writes this header itself, else callers forge it.",
    )


class BatchingSettings(Strict):
    """How the ingress gathers texts before it calls the classifier."""

    max_microbatch_texts: PositiveInt = Field(
        default=256,
        description="Limits the texts of a call. Lower it so that less waits behind a long one.",
    )
    max_inflight_batches: PositiveInt = Field(
        default=64,
        description="Limits the calls under way from one ingress replica. Lower it for larger "
        "batches that start later.",
    )
    min_gap_ms: Annotated[float, Field(ge=0)] = Field(
        default=10.0,
        description="Sets the pause between two calls, in ms, while one is under way; an idle "
        "service never pauses. Raise it to 30 where the model needs all cores; set it to 0 for "
        "the smallest batches.",
    )


class LongTextSettings(Strict):
    """Texts with more tokens than the model reads."""

    strategy: Literal["truncate", "window"] = Field(
        default="truncate",
        description="Cuts them, or reads them whole in windows. Set it where any part may decide.",
    )
    window_tokens: PositiveInt | None = Field(
        default=None,
        description="Bounds a window; null: by the model. Set it to the length of training texts.",
    )
    overlap_tokens: Annotated[int, Field(ge=0, le=4_096)] = Field(
        default=32, description="Repeats so many tokens in the next window. Set it to 0 for rows."
    )
    pooling: Literal["mean", "max", "length"] = Field(
        default="mean",
        description="Makes one answer of the windows' logits: their mean, by tokens or not, or of "
        "each label the highest. Set it to max where one place is enough.",
    )
    max_windows: PositiveInt = Field(default=64, description="Refuses more. Raise it for books.")


class ExplainSettings(Strict):
    """Answers that say what each part of a text added to the label; see docs/explain.md."""

    enabled: bool = Field(
        default=False,
        description="Answers POST /explain, in a deployment of its own that starts at the first "
        "question. Set it to true where people ask why; an explanation costs tens of passes.",
    )
    max_texts: PositiveInt = Field(
        default=8,
        description="Limits the texts of one request that are explained; more get 413. Raise it "
        "where one caller may keep others waiting.",
    )
    max_passes: Annotated[int, Field(ge=2, le=512)] = Field(
        default=128,
        description="Limits the forward passes of an explanation; a request for more gets 422. "
        "Raise it for smaller `convergence_delta`.",
    )
    max_s: Annotated[float, Field(gt=0)] = Field(
        default=10.0,
        description="Limits the seconds of an explanation: as many passes are made as fit in. "
        "Lower it where the machine is shared, raise it for long texts and large models.",
    )


class AuditSettings(Strict):
    """A log of what was decided, without the texts."""

    directory: str | None = Field(
        default=None,
        description="Names the directory where each Tokenizer writes a JSON line per text; null "
        "keeps no audit log. Set it where you must account for decisions.",
    )
    secret_file: str | None = Field(
        default=None,
        description="Names the file that keys the hashes of texts. Set it alike on every node.",
    )
    chain: bool = Field(
        default=False,
        description="Signs each line together with all lines before it, for `rayclassify audit "
        "verify`. Set it to true where a changed log must show.",
    )
    scores: bool = Field(
        default=True,
        description="Writes scores beside labels. Set it to false where a score says too much.",
    )
    max_file_bytes: PositiveInt = Field(
        default=100_000_000,
        description="Limits a file's bytes; a full one is put aside. Lower it to copy them sooner.",
    )
    max_files: int = Field(
        default=10,
        ge=2,
        description="Limits a replica's files; the oldest goes. Raise it where you copy seldom.",
    )

    @model_validator(mode="after")
    def _keyed(self) -> AuditSettings:
        if self.directory is not None and self.secret_file is None:
            raise ValueError(
                "`directory` needs `secret_file`: make one with `openssl rand -hex 32`"
            )
        return self


PersonalData = Literal["email", "id_card", "credit_card", "iban", "phone", "ip"]


class RedactionSettings(Strict):
    """Personal data taken out of a text before the model reads it; needs the extra `redaction`."""

    kinds: list[PersonalData] = Field(
        default=[],
        description="Lists what is cut out of a text: email, id_card, credit_card, iban, phone, "
        "ip. Set it where the model must not read personal data.",
    )
    phone_region: Annotated[str, Field(pattern="^[A-Z]{2}$")] = Field(
        default="CN",
        description="Names the country whose numbers carry no +86 or the like. Change it to yours.",
    )


class AccessSettings(Strict):
    """Who may ask. With neither keys_file nor jwt_jwks, everybody who reaches the port."""

    keys_file: str | None = Field(
        default=None,
        description="Names the file of hashed API keys that `rayclassify keys new` makes; null "
        "asks for no key. Set it before others reach the port.",
    )
    jwt_jwks: Annotated[str, AfterValidator(_check_jwks)] | None = Field(
        default=None,
        description="Names the public keys of the provider that signs JWTs: a JWKS file or an "
        "https URL. Set it to let the provider's users in; it needs the extra jwt.",
    )
    jwt_issuer: str | None = Field(
        default=None, description="Holds the `iss` that a JWT must have. Set it with `jwt_jwks`."
    )
    jwt_audience: str | None = Field(
        default=None, description="Holds the `aud` that a JWT must have. Set it with `jwt_jwks`."
    )
    jwt_scope_claim: str = Field(
        default="scope",
        min_length=1,
        description="Names the claim with a JWT's scopes. Change it where yours is scp, say.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Lets callers without a key classify too, all of them as one caller. Set it "
        "to true where keys only raise a rate.",
    )
    texts_per_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Limits callers that have no rate of their own, in texts a second in each "
        "Tokenizer replica; null is no limit. Set it where one caller could take all.",
    )
    texts_per_day: PositiveInt | None = Field(
        default=None,
        description="Limits callers that have no quota of their own, in texts a day (UTC) in "
        "each Tokenizer replica; null is no limit. Set it where use must end somewhere.",
    )
    docs_public: bool = Field(
        default=True,
        description="Shows /docs, /openapi.json and / without a key, as a browser sends none. "
        "Set it to false where strangers may not see them.",
    )
    cors_origins: list[Annotated[str, AfterValidator(_check_origin)]] = Field(
        default=[],
        description="Lists the web pages that may ask from a browser; an empty list lets in only "
        "our own. Set it to origins, as [https://shop.example.com].",
    )

    @property
    def enabled(self) -> bool:
        """Whether callers must say who they are."""
        return self.keys_file is not None or self.jwt_jwks is not None

    @model_validator(mode="after")
    def _check_jwt(self) -> Self:
        if self.jwt_jwks is not None and (self.jwt_issuer is None or self.jwt_audience is None):
            raise ValueError("jwt_jwks needs jwt_issuer and jwt_audience beside it")
        return self


DialectName = Literal[
    "tei", "vllm", "infinity", "kserve", "oip", "sagemaker", "vertex", "openai", "mcp"
]


class DialectSettings(Strict):
    """Other servers' ways of asking, beside our own POST /classify."""

    spoken: list[DialectName] = Field(
        default=["tei", "vllm", "infinity", "kserve", "oip", "sagemaker", "vertex", "openai"],
        description="Lists the dialects that are answered: tei (Text Embeddings Inference), "
        "vllm, infinity, kserve (v1), oip (Open Inference Protocol), sagemaker, vertex, openai; "
        "mcp (tools for language models) is off by default. Leave out what nobody should use.",
    )
    classify_default: Literal["vllm", "infinity"] = Field(
        default="vllm",
        description="Chooses whose answer a body with `input` gets at /classify, where theirs and "
        "ours share a path. Set it to infinity where its clients ask.",
    )
    info: Literal["ours", "tei"] = Field(
        default="ours",
        description="Chooses whose fields GET /info has. Set it to tei where programs read them as "
        "Text Embeddings Inference names them; `rayclassify info` reads ours.",
    )
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] | None = Field(
        default=None,
        description="Names the model where a dialect asks for a name; null takes the last part of "
        "model.id. Set it where clients have another name in their URLs.",
    )
    moderation_categories: dict[str, str] = Field(
        default={},
        description="Maps a label to the category that /v1/moderations shows; a label that is not "
        "named is its own category. A model with one label a text flags only labels that are "
        "named. Set it before you moderate with such a model, or for OpenAI's names.",
    )


class TracingSettings(Strict):
    """Traces by OpenTelemetry, off by default; needs the extra `traces`."""

    endpoint: str | None = Field(
        default=None,
        description="Names the OTLP address that spans are sent to over HTTP, as "
        "http://collector:4318/v1/traces; null makes none. Set it to see one request's way.",
    )
    share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01,
        description="Sets the share of requests that are traced, 0 to 1, of those that come "
        "without a traceparent; with one, its own mark decides. Set it to 1 to see all.",
    )


Part = Literal["cascade", "shadow"]
"""What has a model of its own beside `args.model`."""

PARTS: dict[Part, str] = {"cascade": "FirstClassifier", "shadow": "ShadowClassifier"}
"""Each part, and the deployment that runs its model."""


class Settings(Strict):
    """All of `args:`."""

    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    cascade: CascadeSettings = CascadeSettings()
    shadow: ShadowSettings = ShadowSettings()
    limits: LimitSettings = LimitSettings()
    batching: BatchingSettings = BatchingSettings()
    long_text: LongTextSettings = LongTextSettings()
    explain: ExplainSettings = ExplainSettings()
    audit: AuditSettings = AuditSettings()
    redaction: RedactionSettings = RedactionSettings()
    access: AccessSettings = AccessSettings()
    dialects: DialectSettings = DialectSettings()
    tracing: TracingSettings = TracingSettings()

    def of(self, part: Part) -> Settings | None:
        """As if the part's model were the only one; None where the part has none."""
        other: CascadeSettings | ShadowSettings = getattr(self, part)
        if other.model is None:
            return None
        alone = {"cascade": CascadeSettings(), "shadow": ShadowSettings()}
        found = {"model": other.model, "engine": other.engine or self.engine, **alone}
        return self.model_copy(update=found)
