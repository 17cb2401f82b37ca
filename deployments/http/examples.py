"""Requests, answers and errors as the documentation shows them."""

from __future__ import annotations

from typing import Any

from deployments.http.dialects.base import Json
from deployments.http.media_types import JSON
from deployments.http.schemas import SCHEMA_REF
from deployments.pipeline.errors import (
    BadRequest,
    DeadlineExceeded,
    EmptyText,
    Forbidden,
    InvalidInput,
    NotReady,
    Overloaded,
    PredictionFailed,
    QuotaExceeded,
    RateLimited,
    ServiceError,
    TextTooLong,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from deployments.settings import LimitSettings

REQUESTS: dict[str, Any] = {
    "chinese": {
        "summary": "One text, in Chinese",
        "value": {"text": "房间很干净，离地铁站也近，下次还会再来。"},
    },
    "english": {
        "summary": "One text, in English, if the model reads it (the demo model does not)",
        "value": {"text": "The room was clean and close to the station. We will come again."},
    },
    "list": {
        "summary": "A list of texts",
        "value": {"text": ["包装破了，客服也不理人。", "质量很好，会再来。"]},
    },
    "options": {
        "summary": "The best label only, refused if too long",
        "value": {"text": "书的内容不错，就是印刷差了点。", "top_k": 1, "truncation": False},
    },
    "pair": {
        "summary": "A pair, for models that read two texts",
        "value": {"text": "The cat sleeps.", "text_pair": "An animal rests."},
    },
}

_POSITIVE = {
    "label": "positive",
    "score": 0.982,
    "scores": {"positive": 0.982, "negative": 0.018},
    "tokens": 22,
    "truncated": False,
}

ANSWERS: dict[str, Any] = {
    "one": _POSITIVE,
    "list": [
        _POSITIVE,
        {"error": EmptyText("text is empty or only spaces. Send some words.").body("6f1c")},
    ],
    "ok": {"status": "ok"},
    "ready": {"status": "ready"},
    "explained": {
        **_POSITIVE,
        "tokens": 4,
        "explanation": {
            "label": "positive",
            "of": "log_odds",
            "method": "integrated_gradients",
            "baseline": "mask token [MASK]; the tokenizer's own marks are kept",
            "passes": 32,
            "seconds": 0.31,
            "sum": 4.1,
            "convergence_delta": 0.001,
            "elsewhere": 0.2,
            "truncated": False,
            "tokens": [
                {"text": "很", "start": 0, "end": 1, "attribution": 0.8},
                {"text": "好", "start": 1, "end": 2, "attribution": 3.1},
            ],
        },
    },
    "info": {
        "model": "models/demo",
        "revision": None,
        "fingerprint": "6a69f26f4ef5a3b0d2c19c0e8f5d7b61d3f6a8c4e2b90715a6c8d4e1f3b59702",
        "labels": ["negative", "positive"],
        "problem_type": "single_label_classification",
        "max_length": 512,
        "temperature": 1.0,
        "calibration": {"abstain_below": 0.8, "label_set_from": None, "platt": None},
        "postprocessing": {
            "threshold": 0.5,
            "abstain_below": 0.9,
            "label_set_from": None,
            "top_k": None,
            "round_scores": 8,
        },
        "engine": "torch",
        "device": "cpu",
        "dtype": "bfloat16",
        "num_threads": 1,
        "batching": "packed",
        "batching_reason": None,
        "selected_by": "measurement",
        "max_batch_tokens": 4096,
        "limits": {
            "max_body_bytes": 2_000_000,
            "max_batch_texts": 1024,
            "max_text_chars": 100_000,
            "request_timeout_s": 30.0,
        },
        "dialects": ["tei", "oip"],
        "versions": {"rayclassify": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "update": None,
        "certificate": None,
    },
    "state": {
        "application": {"name": "classify", "status": "RUNNING"},
        "deployments": [
            {"name": "Tokenizer", "status": "HEALTHY", "replicas": {"RUNNING": 1}},
            {
                "name": "Classifier",
                "status": "UPSCALING",
                "replicas": {"RUNNING": 1, "STARTING": 1},
            },
            {"name": "Postprocessor", "status": "HEALTHY", "replicas": {"RUNNING": 1}},
        ],
        "ingress": {
            "replica": "k2v9x1ab",
            "pending_texts": 12,
            "max_pending_texts": 2048,
            "ahead_s": 0.08,
            "refused_requests": 0,
        },
        "classifiers": [
            {
                "replica": "9f31c07a5e20",
                "heard_s": 0.012,
                "queued_tokens": 410,
                "tokens_per_s": 21800,
                "passes": 5120,
                "read_texts": 40960,
                "read_tokens": 1310720,
            }
        ],
    },
}


def errors_by_status(limits: LimitSettings, with_keys: bool) -> dict[int, list[ServiceError]]:
    """One of each error that POST /classify can answer, by status.

    with_keys: callers must say who they are.
    """
    chars, texts = limits.max_text_chars, limits.max_batch_texts
    errors: list[ServiceError] = [
        BadRequest("The body is not valid JSON: Expecting ',' delimiter (byte 17)."),
        DeadlineExceeded(
            f"The request took longer than {limits.request_timeout_s:g} s. Send fewer texts."
        ),
        TooLarge(f"text has {texts + 1} texts; the limit is {texts}. Send several requests."),
        TextTooLong(f"text has {chars + 1} characters; the limit is {chars}. Shorten it."),
        UnsupportedMediaType("This content type is not accepted. Send application/json."),
        InvalidInput("Unknown field `texts`; the field is `text`."),
        EmptyText("text is empty or only spaces. Send some words."),
        Overloaded(f"{limits.max_pending_texts} texts are waiting. Try again in 1 s."),
        ServiceError(),
        PredictionFailed("The model failed on this text."),
        NotReady("The model is loading. Try again soon."),
    ]
    if with_keys:
        errors += [
            Unauthorized("This service needs a key. Send it as `Authorization: Bearer KEY`."),
            Forbidden("This key has no scope classify; it has explain."),
            RateLimited("This caller may send 50 texts a second and has sent more."),
            QuotaExceeded("This caller may send 10000 texts a day and has sent them."),
        ]
    by_status: dict[int, list[ServiceError]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return by_status


def error_responses(limits: LimitSettings, with_keys: bool) -> Json:
    """Status → OpenAPI's response object, of all errors of POST /classify."""
    return {
        str(status): error_response(errors)
        for status, errors in errors_by_status(limits, with_keys).items()
    }


def error_response(errors: list[ServiceError]) -> Json:
    """OpenAPI's response object for errors of one status."""
    response: Json = {
        "description": " or ".join(f"`{error.code}`" for error in errors),
        "content": {
            JSON: {
                "schema": ref("ErrorAnswer"),
                "examples": {
                    error.code: {"value": {"error": error.body("6f1c")}} for error in errors
                },
            }
        },
    }
    if any(hasattr(error, "retry_after_s") for error in errors):
        response["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    return response


def ref(name: str) -> Json:
    """A reference to the schema of one of schemas.py's structs."""
    return {"$ref": SCHEMA_REF.format(name=name)}
