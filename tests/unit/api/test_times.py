"""How long an answer took, said in its headers."""

from __future__ import annotations

import httpx
import pytest
from stand_in import LIMITS, Client, LengthClassifier

from deployments.http.app import create_app
from deployments.http.classify_route import Times
from deployments.pipeline.errors import EmptyText
from deployments.pipeline.types import TimedAnswer

NAMES = (
    "x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time",
)  # fmt: skip


class TimedClassifier(LengthClassifier):
    """Says of each text that its batch took 3 ms of tokenizing and as many ms as it is long."""

    def _classify(self, item):
        answer = super()._classify(item)
        if isinstance(answer, dict):
            return TimedAnswer.of(answer, 0.003, answer["tokens"] / 1e3)
        return answer


def said_ms(response: httpx.Response) -> dict[str, int]:
    return {name: int(response.headers[name]) for name in NAMES}


@pytest.mark.parametrize(
    ("path", "body", "model_ms"),
    [
        ("/classify", {"text": "seven.."}, 7),
        ("/classify", {"text": ["123", "12345", ""]}, 4),
        ("/predict", {"inputs": [["123"], ["12345"]]}, 4),
        ("/v1/classify", {"input": "seven.."}, 7),
    ],
)
def test_every_answer_says_how_long_it_took(path, body, model_ms):
    client = Client(create_app(TimedClassifier(), LIMITS))
    response = client.request("POST", path, json=body)
    assert response.status_code == 200
    said = said_ms(response)
    assert said["x-tokenization-time"] == 3
    assert said["x-inference-time"] == model_ms
    assert said["x-compute-time"] == said["x-total-time"]
    # The rest of the answer is what it would be without.
    plain = Client(create_app(LengthClassifier(), LIMITS)).request("POST", path, json=body)
    if path != "/v1/classify":  # an id and a time of its own
        assert _without_id(response.content) == _without_id(plain.content)


def test_what_is_no_question_of_labels_says_only_the_whole(client):
    response = client.request("POST", "/tokenize", json={"inputs": "abc"})
    said = said_ms(response)
    assert said["x-inference-time"] == said["x-tokenization-time"] == 0


def test_an_error_says_nothing(client):
    response = client.classify({"text": ""})
    assert response.status_code == 422
    assert not set(NAMES) & set(response.headers)


def test_what_is_neither_tokenizing_nor_the_models_pass_is_waiting():
    times = Times()
    answers = [TimedAnswer.of({}, 0.001, 0.004), TimedAnswer.of({}, 0.003, 0.008), EmptyText("")]
    times.take(answers, 0.050)
    assert times.tokenize_s == pytest.approx(0.002)
    assert times.model_s == pytest.approx(0.006)
    assert times.queue_s == pytest.approx(0.042)
    assert dict(times.headers(0.0614)) == {
        b"x-compute-time": b"61",
        b"x-total-time": b"61",
        b"x-tokenization-time": b"2",
        b"x-queue-time": b"42",
        b"x-inference-time": b"6",
    }


def _without_id(content: bytes) -> bytes:
    head, _, rest = content.partition(b'"request_id":"')
    return head + rest[32:]
