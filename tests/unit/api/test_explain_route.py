"""POST /explain and `"explain": true`: what reaches the service, and who may ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stand_in import LIMITS, Client, LengthClassifier

from deployments.access.keys import hash_of, new_token
from deployments.http.app import create_app
from deployments.http.openapi import openapi_document
from deployments.pipeline.errors import NotImplementedHere
from deployments.pipeline.explaining import OFF
from deployments.settings import AccessSettings

DEFAULT = ("short", "auto", 32)


@pytest.fixture
def client() -> Client:
    return Client(create_app(LengthClassifier(), LIMITS))


def how(answer: Any) -> tuple[str, str, int]:
    found = answer["explanation"]
    return found["label"], found["method"], found["passes"]


def explain(client: Client, body: Any, **headers: str) -> Any:
    return client.request("POST", "/explain", json=body, headers=headers)


def test_its_options_reach_the_explainer(client: Client) -> None:
    asked = {"text": "a", "target": "long", "method": "occlusion", "passes": 9}
    answer = explain(client, asked).json()
    assert answer["label"] == "short"
    assert how(answer) == ("long", "occlusion", 9)
    many = explain(client, {"text": ["a", ""], "top_k": 1}).json()
    assert how(many[0]) == DEFAULT
    assert many[1]["error"]["code"] == "empty_text"


def test_classify_explains_where_it_is_told_to(client: Client) -> None:
    assert how(client.classify({"text": "a", "explain": True}).json()) == DEFAULT
    assert "explanation" not in client.classify({"text": "a"}).json()
    form = client.send(b"text=a&explain=true", "application/x-www-form-urlencoded")
    assert how(form.json()) == DEFAULT
    plain = client.request("POST", "/explain", content=b"a", headers={"content-type": "text/plain"})
    assert how(plain.json()) == DEFAULT


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "a", "method": "lime"}, "`method`: expected auto or integrated_gradients or"),
        ({"text": "a", "passes": 1}, "`passes`: expected int >= 2"),
        ({"text": "a", "passes": 513}, "`passes`: expected int <= 512"),
        ({"text": "a", "target": 1}, "`target`: expected str or null, got int"),
        ({"text": "a", "pases": 9}, "Unknown field `pases`; the field is `passes`."),
        ({}, "The field `text` is missing."),
    ],
)
def test_wrong_options_are_named(client: Client, body: Any, message: str) -> None:
    answer = explain(client, body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(message)


def test_an_option_of_explain_is_none_of_classify(client: Client) -> None:
    answer = client.classify({"text": "a", "passes": 9})
    assert answer.status_code == 422
    assert "Unknown field `passes`" in answer.json()["error"]["message"]
    wrong = client.classify({"text": "a", "long_text": "windows"}).json()["error"]["message"]
    assert wrong.startswith("`long_text`: expected truncate or window or error.")


def test_a_stream_explains_nothing_and_says_where_to_ask(client: Client) -> None:
    answer = client.request("POST", "/classify/stream", content=b'{"text": "a", "explain": true}\n')
    assert "POST /explain" in answer.json()["error"]["message"]


def test_where_it_is_off_the_answer_is_501(client: Client) -> None:
    service = LengthClassifier()
    service.failure = NotImplementedHere(OFF)
    answer = explain(Client(create_app(service, LIMITS)), {"text": "a"})
    assert answer.status_code == 501
    assert "args.explain.enabled" in answer.json()["error"]["message"]


def test_a_key_needs_the_scope_wherever_it_asks(tmp_path: Path) -> None:
    tokens = {name: new_token() for name in ("shop", "explainer", "both", "admin")}
    scopes = {
        "shop": ["classify"],
        "explainer": ["explain"],
        "both": ["classify", "explain"],
        "admin": ["admin"],
    }
    keys = [{"id": n, "sha256": hash_of(v), "scopes": scopes[n]} for n, v in tokens.items()]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"))
    client = Client(create_app(LengthClassifier(), LIMITS, access))

    def statuses(path: str, body: Any) -> dict[str, int]:
        return {
            name: client.request("POST", path, json=body, headers={"x-api-key": token}).status_code
            for name, token in tokens.items()
        }

    text = {"text": "a"}
    assert statuses("/explain", text) == {"shop": 403, "explainer": 200, "both": 200, "admin": 200}
    asked = statuses("/classify", {**text, "explain": True})
    assert asked == {"shop": 403, "explainer": 403, "both": 200, "admin": 200}


def test_openapi_describes_it() -> None:
    document = openapi_document(LIMITS)
    operation = document["paths"]["/explain"]["post"]
    assert operation["operationId"] == "explain"
    assert {"422", "429", "501", "503"} <= operation["responses"].keys()
    assert "ExplainRequest" in document["components"]["schemas"]
    assert "Explanation" in document["components"]["schemas"]
