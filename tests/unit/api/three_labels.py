"""A service with three labels, decoded as in production, for dialects that show scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stand_in import LIMITS, Client, LengthClassifier

from deployments.http.app import create_app
from deployments.http.dialects import dialects
from deployments.pipeline.errors import ServiceError, TextTooLong
from deployments.pipeline.tasks.text_classification import LabelDecoder
from deployments.pipeline.types import Answer, Logits, ModelInfo, TextInput
from deployments.settings import AccessSettings, DialectSettings
from deployments.user_config import PostprocessorUserConfig

LABELS = ("neutral", "insult", "threat")
LOGITS = {
    "calm": (2.0, -1.0, 0.5),
    "rude": (-2.0, 3.0, 0.0),
    "grim": (-3.0, 1.0, 4.0),
    "dull": (-3.0, -2.0, -1.0),
}
"""By the first word; best first is the model's own order for none of them."""

LIMIT_TOKENS = 20

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


class ThreeLabels(LengthClassifier):
    """A text's first word decides; characters count as tokens, and 20 is the model's limit."""

    def __init__(self, problem_type: str = SINGLE, **defaults: Any) -> None:
        super().__init__()
        info = ModelInfo("three", None, LABELS, problem_type, LIMIT_TOKENS, 1.0)
        self._decoder = LabelDecoder(info, PostprocessorUserConfig(**defaults))

    def _classify(self, item: TextInput | ServiceError) -> Answer | ServiceError:
        if isinstance(item, ServiceError):
            return item
        if item.text in self.bad_texts:
            return self.bad_texts[item.text]
        n_tokens = len(item.text) + len(item.text_pair or "")
        if n_tokens > LIMIT_TOKENS and not item.options.truncation:
            return TextTooLong(f"text has {n_tokens} tokens; the limit is {LIMIT_TOKENS}.")
        logits = Logits(np.array([LOGITS[item.text.partition(" ")[0]]], np.float32))
        [answer] = self._decoder.decode(logits, [item.options])
        return {
            **answer,
            "tokens": min(n_tokens, LIMIT_TOKENS),
            "truncated": n_tokens > LIMIT_TOKENS,
        }


def softmax(*logits: float) -> list[float]:
    powers = np.exp(np.array(logits))
    return [round(float(power), 8) for power in powers / powers.sum()]


def sigmoid(*logits: float) -> list[float]:
    return [round(float(1 / (1 + np.exp(-logit))), 8) for logit in logits]


def close(scores: list[float]) -> Any:
    """As the decoder rounds, in float32."""
    return pytest.approx(scores, abs=2e-8, rel=1e-6)


def speaking(
    service: LengthClassifier,
    access: AccessSettings | None = None,
    model: str = "models/three",
    **chosen: Any,
) -> Client:
    """A client of an application that speaks what `args.dialects` says."""
    spoken = dialects(LIMITS, DialectSettings(**chosen), model)
    return Client(create_app(service, LIMITS, access or AccessSettings(), spoken=spoken))


def post(client: Client, path: str, body: Any, **options: Any) -> Any:
    return client.request("POST", path, json=body, **options)


def error_of(answer: Any, status: int, kind: str = "BadRequestError") -> str:
    """Checks an error's shape as OpenAI-like servers have it; returns its message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert answer.json().keys() == {"error"}
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, status)
    return str(error["message"])


WRONG_TYPES = [
    None, 1, 1.5, True, {}, {"a": {}}, [None], [1.5], [{}], [[]], [["a", "b", "c"]], [{"text": 1}],
    [{"text": ["calm", "rude"]}], [{"text": "calm", "text_pair": 1}], [{"text": None}],
    ["calm", {"type": "text"}], [{"type": []}],
    "\ud800", ["\ud800"], [{"\ud800": 1}], [[["calm"]]],
]  # fmt: skip
"""None of these is a text or a list of texts in any dialect."""
