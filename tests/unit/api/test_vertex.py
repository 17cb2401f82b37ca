"""Vertex AI's dialect, and the paths that its environment names."""

from __future__ import annotations

import json

import pytest
from stand_in import LIMITS, Client
from three_labels import LOGITS, MULTI, WRONG_TYPES, ThreeLabels, close, post, softmax, speaking

from deployments.http.dialects import vertex
from deployments.http.routes import table
from deployments.pipeline.errors import DeadlineExceeded, Overloaded, PredictionFailed
from deployments.settings import AccessSettings

PATH = "/vertex/predict"
NAMED = "/v1/endpoints/123/deployedModels/456"


@pytest.fixture
def three() -> ThreeLabels:
    return ThreeLabels()


@pytest.fixture
def client(three: ThreeLabels) -> Client:
    return speaking(three)


def ask(client: Client, *instances, **parameters):
    body = {"instances": list(instances)}
    return post(client, PATH, body | ({"parameters": parameters} if parameters else {}))


def error_of(answer, code, status="INVALID_ARGUMENT"):
    """Checks an error's shape; returns its message."""
    assert answer.status_code == code, answer.text
    error = answer.json()["error"]
    assert answer.json().keys() == {"error"}
    assert error.keys() == {"code", "message", "status"}
    assert (error["code"], error["status"]) == (code, status)
    return error["message"]


def test_each_instance_gets_a_prediction(client):
    answer = ask(client, "rude", {"text": "calm"}, {"content": "grim", "mimeType": "text/plain"})
    assert answer.status_code == 200
    assert answer.json().keys() == {"predictions"}
    rude, calm, grim = answer.json()["predictions"]
    assert (rude["label"], calm["label"], grim["label"]) == ("insult", "neutral", "threat")
    assert list(rude["scores"]) == ["insult", "threat", "neutral"]
    scores = softmax(*LOGITS["rude"])
    assert [rude["scores"][label] for label in ("neutral", "insult", "threat")] == close(scores)
    assert rude["score"] == rude["scores"]["insult"]
    assert (rude["tokens"], rude["truncated"]) == (4, False)


def test_a_pair_is_read_as_a_pair(client, three):
    assert ask(client, {"text": "rude", "text_pair": "b"}, ["calm", "c"]).status_code == 200
    assert [(item.text, item.text_pair) for item in three.seen] == [("rude", "b"), ("calm", "c")]


def test_parameters_are_those_of_our_own_requests(client):
    [told] = ask(client, "rude", top_k=2).json()["predictions"]
    assert list(told["scores"]) == ["insult", "threat"]
    [told] = ask(client, "rude", raw_scores=True).json()["predictions"]
    assert told["scores"] == {"insult": 3.0, "threat": 0.0, "neutral": -2.0}
    long = "calm " + "x" * 30
    assert ask(client, long).json()["predictions"][0]["truncated"]
    assert "35 tokens" in error_of(ask(client, long, truncation=False), 400)
    multi = speaking(ThreeLabels(MULTI))
    assert ask(multi, "grim").json()["predictions"][0]["labels"] == ["threat", "insult"]
    told = ask(multi, "grim", threshold=0.9).json()["predictions"][0]
    assert told["labels"] == ["threat"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"top_k": 0}, {"top_k": "1"}, {"truncation": None}, {"truncation": "yes"},
        {"raw_scores": 1}, {"threshold": 2}, {"threshold": "x"},
    ],
)  # fmt: skip
def test_parameters_of_the_wrong_type_are_refused(client, parameters):
    error_of(ask(client, "rude", **parameters), 400)


def test_one_bad_instance_fails_no_other(client, three):
    three.bad_texts["grim"] = PredictionFailed("The model failed on this text.")
    answer = ask(client, "rude", "", "grim", {"txt": "calm"})
    assert answer.status_code == 200
    good, empty, failed, strange = answer.json()["predictions"]
    assert good["label"] == "insult"
    assert (empty["error"]["code"], empty["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert (failed["error"]["code"], failed["error"]["status"]) == (500, "INTERNAL")
    assert "must be a string; got an object" in strange["error"]["message"]
    error_of(ask(client, ""), 400)


@pytest.mark.parametrize("value", [v for v in WRONG_TYPES if not isinstance(v, list)], ids=repr)
def test_wrong_types_are_the_callers_mistake(client, value):
    error_of(client.request("POST", PATH, content=json.dumps({"instances": value})), 400)


@pytest.mark.parametrize("value", [v for v in WRONG_TYPES if isinstance(v, list)], ids=repr)
def test_an_instance_of_the_wrong_type_is_never_an_error_of_ours(client, value):
    answer = client.request("POST", PATH, content=json.dumps({"instances": value}))
    if answer.status_code == 200:
        assert any(one.get("error", {}).get("code") == 400 for one in answer.json()["predictions"])
    else:
        error_of(answer, 400)


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b"null", b"\xff", b"[" * 1_500])
def test_what_is_no_request_is_told_so(client, body):
    error_of(client.request("POST", PATH, content=body), 400)


def test_errors_are_those_of_googles_apis(client, three):
    assert "empty list" in error_of(ask(client), 400)
    assert "5 texts" in error_of(ask(client, *["calm"] * 5), 400)
    error_of(ask(client, "x" * LIMITS.max_body_bytes), 400)
    kind = {"content-type": "text/csv"}
    error_of(client.request("POST", PATH, content=b"a", headers=kind), 400)
    three.failure = Overloaded("Too much waits.", 2.2)
    answer = ask(client, "calm")
    error_of(answer, 429, "RESOURCE_EXHAUSTED")
    assert answer.headers["retry-after"] == "3"
    three.failure = DeadlineExceeded("Too late.")
    error_of(ask(client, "calm"), 504, "DEADLINE_EXCEEDED")
    three.failure = RuntimeError("calm is what it was given")
    assert "calm" not in error_of(ask(client, "calm"), 500, "INTERNAL")


def test_health_tells_whether_texts_can_be_classified(client, three):
    assert client.get("/vertex/health").status_code == 200
    three.is_ready = False
    error_of(client.get("/vertex/health"), 503, "UNAVAILABLE")


def test_health_needs_no_key_and_texts_do(three, tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_HEALTH_ROUTE", NAMED)
    (tmp_path / "keys.json").write_text('{"keys": []}')
    client = speaking(three, AccessSettings(keys_file=str(tmp_path / "keys.json")))
    assert client.get("/vertex/health").status_code == 200
    assert client.get(NAMED).status_code == 200
    error_of(ask(client, "calm"), 401, "UNAUTHENTICATED")


def test_it_answers_where_vertex_ai_says(three, monkeypatch):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", f"{NAMED}:predict")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", NAMED)
    client = speaking(three)
    body = {"instances": ["rude"]}
    assert post(client, f"{NAMED}:predict", body).json() == post(client, PATH, body).json()
    assert client.get(NAMED).status_code == client.get("/vertex/health").status_code == 200
    assert {NAMED, f"{NAMED}:predict"} <= client.get("/openapi.json").json()["paths"].keys()


@pytest.mark.parametrize(
    "taken",
    ["/classify", "/v1/classify", "/invocations", "/ping", "/health", "/ready", "/info", "/"],
)
def test_a_named_path_that_is_taken_is_left_and_said(three, monkeypatch, caplog, taken):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", taken)
    monkeypatch.setenv("AIP_HEALTH_ROUTE", taken)
    client = speaking(three)
    assert ask(client, "rude").status_code == 200
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 2
    assert said[0].startswith(f"AIP_PREDICT_ROUTE is {taken}, ") or taken == "/"
    assert client.get("/openapi.json").status_code == 200


def test_a_named_path_is_had_where_the_other_dialect_is_not_spoken(three, monkeypatch):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/invocations")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/ping")
    client = speaking(three, spoken=["vertex"])
    assert "predictions" in post(client, "/invocations", {"instances": ["rude"]}).json()
    assert client.get("/ping").status_code == 200


def test_one_name_for_both_is_the_predictions(three, monkeypatch, caplog):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/both")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/both")
    client = speaking(three)
    assert post(client, "/both", {"instances": ["rude"]}).status_code == 200
    assert "AIP_HEALTH_ROUTE is /both" in caplog.text


@pytest.mark.parametrize("name", ["predict", "/a/{b}", "/a b", "//", "/a/", "http://a/b", "/a?b"])
def test_what_is_no_path_is_left_and_said(three, monkeypatch, caplog, name):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", name)
    assert ask(speaking(three), "rude").status_code == 200
    assert "AIP_PREDICT_ROUTE is no path" in caplog.text


@pytest.mark.parametrize("name", ["", "/vertex/predict", "/vertex/health"])
def test_its_own_paths_may_be_named(three, monkeypatch, caplog, name):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", name)
    assert ask(speaking(three), "rude").status_code == 200
    assert caplog.records == []


def test_it_knows_all_paths_that_are_ours():
    assert set(table([])) == vertex.OURS


def test_a_dialect_that_is_not_spoken_has_no_paths(three, monkeypatch, refused):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/named")
    client = speaking(three, spoken=["vllm"])
    refused(ask(client, "calm"), 404, "not_found")
    refused(post(client, "/named", {"instances": ["calm"]}), 404, "not_found")
    refused(client.get("/vertex/health"), 404, "not_found")
