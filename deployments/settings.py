"""Everything `serve_config.yaml` may say under `args:` and `user_config:`, validated once.

Capacity (replicas, CPUs, GPUs, queues) is not here: it stands under `deployments:` in the YAML.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
PositiveInt = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _check_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("no device; write auto, cpu, cuda, cuda:1 (the second GPU) or mps")
    return name


def _check_engine(name: object) -> object:
    if name == "onnxruntime":
        raise ValueError(
            "ONNX Runtime won on no machine and is gone. "
            "Set args.engine.name: auto (or openvino, torch)."
        )
    return name


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


class ModelSettings(_Strict):
    """Which model to serve."""

    id: str = Field(
        default="models/demo", min_length=1, description="Hub id or directory of the model."
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit on the hub; pin it."
    )
    fingerprint: str | None = Field(
        default=None,
        description="What the directory held when deployed; `rayclassify deploy` writes it.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Run code that comes with the model."
    )
    allow_pickle: bool = Field(
        default=False, description="Load pickled weights (.bin) where there are no safetensors."
    )
    max_length: PositiveInt | None = Field(
        default=None,
        description="Tokens a text may have; null: what model or tokenizer say, else 512.",
    )
    temperature: Annotated[float, Field(ge=0.001, le=1_000)] | None = Field(
        default=None,
        description="Calibration; null: `temperature` of the model's calibration.json, else 1.",
    )


class EngineSettings(_Strict):
    """How the model is run."""

    name: Annotated[
        Literal["auto", "torch", "openvino", "none"], BeforeValidator(_check_engine)
    ] = Field(
        default="auto",
        description="auto: the fastest here that agrees with the model; none: no model at all.",
    )
    device: Annotated[str, AfterValidator(_check_device)] = Field(
        default="auto", description="auto, cpu, cuda, cuda:1, mps."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto", description="auto: the fastest here that agrees with float32."
    )
    packing: bool = Field(
        default=True, description="Run a batch without padding where the model allows it."
    )
    num_threads: PositiveInt | None = Field(
        default=None,
        description="CPU threads per replica; null: its num_cpus, 1 or more, at most what is here.",
    )
    max_logit_drift: Annotated[float, Field(gt=0)] = Field(
        default=0.1,
        description="auto refuses an engine whose logits are further than this from float32.",
    )
    min_label_agreement: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.99, description="auto refuses an engine that gives fewer texts the same label."
    )


class LimitSettings(_Strict):
    """What one request may ask for, and how much may wait."""

    max_body_bytes: PositiveInt = Field(default=2_000_000, description="Larger bodies: 413.")
    max_held_body_bytes: PositiveInt = Field(
        default=250_000_000,
        description="Of all bodies that arrive at one ingress replica; more: 429 with Retry-After.",
    )
    body_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="Longest that the body of a request may take to arrive; then 408."
    )
    max_batch_texts: PositiveInt = Field(
        default=1_000, description="More texts in one request: 413."
    )
    max_text_chars: PositiveInt = Field(default=100_000, description="Longer texts: 413.")
    max_pending_texts: PositiveInt = Field(
        default=2_000,
        description="Texts waiting in one ingress replica; more: 429 with Retry-After.",
    )
    max_queue_s: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="Expected wait for the model; longer: 429 with Retry-After."
    )
    request_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=30.0,
        description="Longest a request may take; then 408. `timeout_ms` asks for less.",
    )
    client_header: Annotated[str, AfterValidator(_check_header)] | None = Field(
        default=None,
        description="Header that names the client, for fair turns; a proxy must set it.",
    )


class BatchingSettings(_Strict):
    """How the ingress gathers texts before it calls the classifier."""

    max_microbatch_texts: PositiveInt = Field(
        default=256, description="Texts in one call, at most."
    )
    max_inflight_batches: PositiveInt = Field(
        default=64, description="Calls under way from one ingress replica, at most."
    )
    min_gap_ms: Annotated[float, Field(ge=0)] = Field(
        default=10.0, description="Pause between two calls while one is under way; none when idle."
    )


class AuditSettings(_Strict):
    """A log of what was decided, without the texts."""

    directory: str | None = Field(
        default=None,
        description="Each Tokenizer writes a JSON line per text here; null: no audit log.",
    )
    secret_file: str | None = Field(
        default=None, description="Its content keys the hashes of texts; needed with `directory`."
    )
    chain: bool = Field(
        default=False, description="Sign each line with all before it: `rayclassify audit verify`."
    )
    scores: bool = Field(default=True, description="Write scores beside labels.")
    max_file_bytes: PositiveInt = Field(
        default=100_000_000, description="A larger file is put aside and a new one begun."
    )
    max_files: int = Field(
        default=10, ge=2, description="Files of one replica; beyond that the oldest is deleted."
    )

    @model_validator(mode="after")
    def _keyed(self) -> AuditSettings:
        if self.directory is not None and self.secret_file is None:
            raise ValueError(
                "`directory` needs `secret_file`: make one with `openssl rand -hex 32`"
            )
        return self


PersonalData = Literal["email", "id_card", "credit_card", "iban", "phone", "ip"]


class RedactionSettings(_Strict):
    """Personal data taken out of a text before the model reads it; needs the extra `redaction`."""

    kinds: list[PersonalData] = Field(
        default=[], description="Of email, id_card, credit_card, iban, phone, ip; none: nothing."
    )
    phone_region: Annotated[str, Field(pattern="^[A-Z]{2}$")] = Field(
        default="CN", description="Country whose numbers need no +86 or the like in front."
    )


class AccessSettings(_Strict):
    """Who may ask. With neither keys_file nor jwt_jwks, everybody who reaches the port."""

    keys_file: str | None = Field(
        default=None,
        description="Hashed API keys, made by `rayclassify keys new`; null: no keys.",
    )
    jwt_jwks: Annotated[str, AfterValidator(_check_jwks)] | None = Field(
        default=None,
        description="Public keys of who signs JWTs: a JWKS file or https URL; needs the extra jwt.",
    )
    jwt_issuer: str | None = Field(default=None, description="The `iss` a JWT must have.")
    jwt_audience: str | None = Field(default=None, description="The `aud` a JWT must have.")
    jwt_scope_claim: str = Field(
        default="scope", min_length=1, description="Claim that holds a JWT's scopes."
    )
    allow_anonymous: bool = Field(
        default=False, description="Who shows no key may classify too; all of them as one caller."
    )
    texts_per_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="For callers without a rate of their own, in each Tokenizer replica.",
    )
    texts_per_day: PositiveInt | None = Field(
        default=None,
        description="For callers without a quota of their own, in each Tokenizer replica.",
    )
    docs_public: bool = Field(
        default=True, description="/docs, /openapi.json and / need no key: a browser sends none."
    )
    cors_origins: list[Annotated[str, AfterValidator(_check_origin)]] = Field(
        default=[], description="Web pages that may ask from a browser; none: only our own."
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


class Settings(_Strict):
    """All of `args:`."""

    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    batching: BatchingSettings = BatchingSettings()
    audit: AuditSettings = AuditSettings()
    redaction: RedactionSettings = RedactionSettings()
    access: AccessSettings = AccessSettings()


class TokenizerUserConfig(_Strict):
    """Live settings of the Tokenizer, `user_config:` in the YAML."""

    log_level: LogLevel = Field(
        default="INFO", description="From which level up our logs are kept."
    )


class ClassifierUserConfig(_Strict):
    """Live settings of the Classifier, `user_config:` in the YAML."""

    log_level: LogLevel = Field(
        default="INFO", description="From which level up our logs are kept."
    )
    max_batch_tokens: PositiveInt = Field(
        default=4_096,
        description="Tokens in one forward pass, at most (a lone longer text still runs).",
    )
    target_p99_ms: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Keep batches small enough for this latency; null: as large as allowed.",
    )
    max_queue_tokens: PositiveInt = Field(
        default=262_144, description="Tokens waiting in one replica; more: 429 with Retry-After."
    )
    max_pass_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="A forward pass that runs longer hangs: the replica ends and is replaced. "
        "After 10 s already where it is known that 20 such passes take less.",
    )


class PostprocessorUserConfig(_Strict):
    """Live settings of the Postprocessor, `user_config:` in the YAML."""

    log_level: LogLevel = Field(
        default="INFO", description="From which level up our logs are kept."
    )
    threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Multi-label: a label counts from this score up."
    )
    top_k: PositiveInt | None = Field(default=None, description="Labels in `scores`; null: all.")
    round_scores: Annotated[int, Field(ge=0, le=8)] | None = Field(
        default=None, description="Decimals of a score; null: all. Few tell a model's copier less."
    )


USER_CONFIGS: dict[str, type[_Strict]] = {
    "Tokenizer": TokenizerUserConfig,
    "Classifier": ClassifierUserConfig,
    "Postprocessor": PostprocessorUserConfig,
}
"""Deployment name → the model its `user_config` must fit."""
