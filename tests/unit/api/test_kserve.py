"""KServe's dialect, version 1, and the list of models that it shares with OpenAI's."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from stand_in import LIMITS, Client, LengthClassifier
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from deployments.http.app import create_app
from deployments.http.dialects import dialects
from deployments.http.dialects.model_list import model_list
from deployments.pipeline.errors import Overloaded, PredictionFailed
from deployments.pipeline.types import Options, TextInput
from deployments.settings import AccessSettings, DialectSettings

PREDICT = "/v1/models/demo:predict"


def predict(client: Client, value: Any, path: str = PREDICT, **options: Any) -> httpx.Response:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return client.request("POST", path, content=content, **options)


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert answer.headers["content-type"] == "application/json"
    message: str = answer.json()["error"]
    return message


def test_predictions_keep_the_names_of_labels(client: Client) -> None:
    answer = predict(client, {"instances": ["good", {"text": "long enough to be long"}]})
    assert answer.status_code == 200
    first, second = answer.json()["predictions"]
    assert (first["label"], first["score"], first["scores"]["long"]) == ("short", 1.0, 0.0)
    assert second["label"] == "long"


@pytest.mark.parametrize("pair", [["a", "b"], {"text": "a", "text_pair": "b"}])
def test_an_instance_can_be_a_pair(client: Client, service: LengthClassifier, pair: Any) -> None:
    assert predict(client, {"instances": [pair]}).status_code == 200
    assert service.seen == [TextInput("a", "b")]


def test_a_pair_can_lack_its_second_half(client: Client, service: LengthClassifier) -> None:
    instances = [{"text": "a", "text_pair": None, "id": 7}, ["a"]]
    assert predict(client, {"instances": instances}).status_code == 200
    assert service.seen == [TextInput("a"), TextInput("a")]


def test_parameters_are_heeded(client: Client, service: LengthClassifier) -> None:
    asked = {"top_k": 2, "raw_scores": True, "threshold": 0.25, "truncation": False}
    assert predict(client, {"instances": ["a"], "parameters": asked}).status_code == 200
    assert predict(client, {"instances": ["a"], "parameters": None}).status_code == 200
    assert [one.options for one in service.seen if isinstance(one, TextInput)] == [
        Options(2, True, 0.25, False),
        Options(),
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid UTF-8"),
        (b'{"instances": [NaN]}', "NaN"),
        (b'{"instances": [' + b"[" * 900, "not valid JSON"),
        ({}, "instances"),
        ([], "instances"),
        ({"instances": "a"}, "array"),
        ({"instances": None}, "array"),
        ({"instances": []}, "at least 1"),
        ({"instances": ["a"] * 5}, "the limit is 4"),
        ({"instances": ["a", 7]}, "instances[1]: instances must be a string; got a number"),
        ({"instances": ["a", " "]}, "instances[1]: instances is empty"),
        ({"instances": [["a", "b", "c"]]}, "got a list"),
        ({"instances": [{"content": "a"}]}, "got an object"),
        ({"instances": [{"text": ["a", "b"]}]}, "got a list"),
        ({"instances": ["a" * 101]}, "the limit is 100"),
        (b'{"instances": ["\\ud800"]}', "not valid Unicode"),
        ({"instances": ["a"], "parameters": 3}, "parameters"),
        ({"instances": ["a"], "parameters": {"topk": 3}}, "top_k"),
        ({"instances": ["a"], "parameters": {"top_k": 0}}, "top_k"),
        ({"instances": ["a"], "parameters": {"top_k": "secret"}}, "`parameters`: Expected"),
        (b'{"instances": ["a"], "parameters": {"top_k": "\\ud800"}}', "`parameters`"),
        (b'{"instances": ["' + b"a" * 3_000 + b'"]}', "2000"),
    ],
)
def test_what_is_wrong_with_a_request_is_a_400_in_kserves_words(
    client: Client, body: Any, says: str
) -> None:
    message = error_of(predict(client, body), 400)
    assert says in message
    assert "secret" not in message


def test_other_content_types_are_a_400_too(client: Client) -> None:
    for kind in ("application/octet-stream", "text/xml"):
        answer = predict(client, {"instances": ["a"]}, headers={"content-type": kind})
        assert "content type" in error_of(answer, 400)


def test_one_bad_text_fails_the_request_and_is_named(
    client: Client, service: LengthClassifier
) -> None:
    service.bad_texts = {"bad": PredictionFailed("The model failed.")}
    message = error_of(predict(client, {"instances": ["a", "bad"]}), 500)
    assert message == "instances[1]: The model failed."


def test_errors_of_the_service_keep_their_status(client: Client, service: LengthClassifier) -> None:
    service.failure = Overloaded("Full.", 3.2)
    answer = predict(client, {"instances": ["a"]})
    assert (error_of(answer, 429), answer.headers["retry-after"]) == ("Full.", "4")
    service.failure = RuntimeError("what it says is nobody's business")
    assert "nobody" not in error_of(predict(client, {"instances": ["a"]}), 500)


@pytest.mark.parametrize("path", ["/v1/models/other:predict", "/v1/models/other:explain"])
def test_another_models_name_is_a_404(client: Client, path: str) -> None:
    answer = predict(client, {"instances": ["a"]}, path)
    assert error_of(answer, 404) == "Model with name other does not exist."


@pytest.mark.parametrize("name", ["a%20b", "n" * 129, "%C3%A9", "a/b", "", "-x"])
def test_a_name_that_may_be_a_text_is_not_repeated(client: Client, name: str) -> None:
    answer = predict(client, {"instances": ["a"]}, f"/v1/models/{name}:predict")
    assert error_of(answer, 404) == "Model with this name does not exist."


def test_explanations_are_not_implemented(client: Client) -> None:
    answer = predict(client, {"instances": ["a"]}, "/v1/models/demo:explain")
    assert "explainer" in error_of(answer, 501)
    assert "nothing" in error_of(predict(client, b"", "/v1/models/demo:train"), 404)


def test_a_wrong_method_is_told_the_right_one_in_kserves_words(client: Client) -> None:
    answer = client.get(PREDICT)
    assert "POST" in error_of(answer, 405)
    assert answer.headers["allow"] == "POST"
    answer = client.request("POST", "/v1/models/demo")
    error_of(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


def test_a_websocket_is_closed(client: Client) -> None:
    with pytest.raises(WebSocketDisconnect), TestClient(client.app).websocket_connect(PREDICT):
        pass


def test_readiness_is_kserves(client: Client, service: LengthClassifier) -> None:
    assert client.get("/v1/models/demo").json() == {"name": "demo", "ready": True}
    service.is_ready = False
    answer = client.get("/v1/models/demo")
    assert "Model with name demo is not ready." in error_of(answer, 503)
    assert answer.headers["retry-after"] == "3"
    assert "does not exist" in error_of(client.get("/v1/models/other"), 404)


def test_one_list_of_models_serves_kserves_clients_and_openais(client: Client) -> None:
    listed = client.get("/v1/models").json()
    (one,) = listed.pop("data")
    assert listed == {"object": "list", "models": ["demo"]}
    assert isinstance(one.pop("created"), int)
    assert one == {"id": "demo", "object": "model", "owned_by": "rayclassify"}


def test_the_list_belongs_to_one_dialect_of_those_that_are_spoken() -> None:
    def shows(*spoken: Any) -> list[str]:
        settings = DialectSettings(spoken=list(spoken))
        return [name for name in ("kserve", "openai") if model_list(name, settings, "demo")]

    assert shows("openai", "kserve") == ["kserve"]
    assert shows("openai") == ["openai"]
    assert shows("oip") == []


def test_the_name_in_paths_is_the_settings(service: LengthClassifier) -> None:
    chosen = DialectSettings(spoken=["kserve"], model_name="mood")
    client = Client(create_app(service, LIMITS, spoken=dialects(LIMITS, chosen, "org/demo")))
    assert predict(client, {"instances": ["a"]}, "/v1/models/mood:predict").status_code == 200
    assert predict(client, {"instances": ["a"]}).status_code == 404
    assert client.get("/v1/models").json()["models"] == ["mood"]


def test_a_prefix_goes_before_the_paths(prefixed: Client) -> None:
    assert predict(prefixed, {"instances": ["a"]}).status_code == 200
    answer = predict(prefixed, {"instances": ["a"]}, "/v1/models/other:predict")
    assert error_of(answer, 404) == "Model with name other does not exist."


def test_keys_are_asked_for_in_kserves_words(service: LengthClassifier, tmp_path: Any) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"))
    client = Client(create_app(service, LIMITS, access))
    for path in (PREDICT, "/v1/models/other:predict"):
        answer = predict(client, {"instances": ["a"]}, path)
        assert "key" in error_of(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/v1/models/demo", "/v1/models/other"):
        assert "key" in error_of(client.get(path), 401)
