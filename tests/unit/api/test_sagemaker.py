"""SageMaker's dialect, as transformers' pipeline answers in Hugging Face's containers."""

from __future__ import annotations

import json

import pytest
from stand_in import LIMITS, Client
from three_labels import (
    LOGITS,
    MULTI,
    WRONG_TYPES,
    ThreeLabels,
    close,
    post,
    sigmoid,
    softmax,
    speaking,
)

from deployments.pipeline.errors import DeadlineExceeded, Overloaded, PredictionFailed
from deployments.settings import AccessSettings

PATH = "/invocations"


@pytest.fixture
def three() -> ThreeLabels:
    return ThreeLabels()


@pytest.fixture
def client(three: ThreeLabels) -> Client:
    return speaking(three)


def ask(client: Client, inputs, **parameters):
    body = {"inputs": inputs}
    return post(client, PATH, body | ({"parameters": parameters} if parameters else {}))


def error_of(answer, status, kind="BadRequestException"):
    """Checks an error's shape; returns its message."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told.keys() == {"code", "type", "message"}
    assert (told["code"], told["type"]) == (status, kind)
    return told["message"]


RUDE = [
    {"label": label, "score": score}
    for label, score in zip(("insult", "threat", "neutral"), softmax(3.0, 0.0, -2.0), strict=True)
]
CALM = {"label": "neutral", "score": softmax(*LOGITS["calm"])[0]}
RUDE_PAIR = {"text": "rude", "text_pair": "b"}


# Each shape as transformers 5.20 gave it for the same call.
@pytest.mark.parametrize(
    ("inputs", "parameters", "expected"),
    [
        ("rude", {}, [RUDE[0]]),
        ("rude", {"top_k": 1}, [RUDE[0]]),
        ("rude", {"top_k": 2}, RUDE[:2]),
        ("rude", {"top_k": None}, RUDE),
        (["rude", "calm"], {}, [RUDE[0], CALM]),
        (["rude"], {}, [RUDE[0]]),
        (["rude", "calm"], {"top_k": 1}, [[RUDE[0]], [CALM]]),
        (["rude"], {"top_k": None}, [RUDE]),
        (RUDE_PAIR, {}, RUDE[0]),
        (RUDE_PAIR, {"top_k": 2}, RUDE[:2]),
        ([RUDE_PAIR, "calm"], {}, [RUDE[0], CALM]),
        ([RUDE_PAIR], {"top_k": None}, [RUDE]),
        ({"text": "rude"}, {}, RUDE[0]),
    ],
)
def test_answers_have_the_pipelines_shapes(client, inputs, parameters, expected):
    answer = ask(client, inputs, **parameters)
    assert answer.status_code == 200

    def rounded(value):
        if isinstance(value, list):
            return [rounded(item) for item in value]
        return value | {"score": round(value["score"], 6)}

    assert rounded(answer.json()) == rounded(expected)


def test_a_pair_is_read_as_a_pair(client, three):
    ask(client, [RUDE_PAIR, {"text": "calm", "text_pair": None}, ["grim", "c"]])
    assert [(item.text, item.text_pair) for item in three.seen] == [
        ("rude", "b"),
        ("calm", None),
        ("grim", "c"),
    ]


def test_plain_text_is_one_text(client):
    headers = {"content-type": "text/plain; charset=utf-8"}
    answer = client.request("POST", PATH, content="rude 你好".encode(), headers=headers)
    assert [one["label"] for one in answer.json()] == ["insult"]
    headers = {"content-type": "text/plain"}
    error_of(client.request("POST", PATH, content=b"\xff", headers=headers), 400)
    error_of(client.request("POST", PATH, content=b" ", headers=headers), 422)


def test_other_content_types_are_told_415(client):
    for kind in ("text/csv", "application/x-npy", "image/png", "multipart/form-data; boundary=x"):
        answer = client.request("POST", PATH, content=b"inputs\n", headers={"content-type": kind})
        error_of(answer, 415)
    form = {"content-type": "application/x-www-form-urlencoded"}
    error_of(client.request("POST", PATH, content=b"inputs=rude", headers=form), 415)
    # As curl -d sends JSON where nobody names the type.
    sent = client.request("POST", PATH, content=b'{"inputs": "rude"}', headers=form)
    assert sent.status_code == 200
    assert client.request("POST", PATH, content=b'{"inputs": "rude"}').status_code == 200


@pytest.mark.parametrize("name", ["none", "NONE"])
def test_no_function_is_raw_scores(client, name):
    told = ask(client, "rude", function_to_apply=name, top_k=None).json()
    assert [(one["label"], one["score"]) for one in told] == [
        ("insult", 3.0),
        ("threat", 0.0),
        ("neutral", -2.0),
    ]
    assert ask(client, "rude", function_to_apply=name).json() == [{"label": "insult", "score": 3.0}]


@pytest.mark.parametrize("problem_type", ["single_label_classification", MULTI, "regression"])
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_a_function_is_the_one_that_was_asked_for_whatever_the_model(problem_type, name):
    client = speaking(ThreeLabels(problem_type))
    told = ask(client, "rude", function_to_apply=name, top_k=3).json()
    expected = sigmoid(3.0, 0.0, -2.0) if name == "sigmoid" else softmax(3.0, 0.0, -2.0)
    assert [one["label"] for one in told] == ["insult", "threat", "neutral"]
    assert [one["score"] for one in told] == close(expected)
    one = ask(client, "rude", function_to_apply=name).json()
    assert [one[0]["score"]] == close(expected[:1])


@pytest.mark.parametrize("absent", [{}, {"function_to_apply": None}])
def test_without_a_function_the_models_own_is_taken(absent):
    multi = ask(speaking(ThreeLabels(MULTI)), "rude", top_k=None, **absent).json()
    assert [one["score"] for one in multi] == close(sigmoid(3.0, 0.0, -2.0))
    plain = ask(speaking(ThreeLabels("regression")), "rude", top_k=None, **absent).json()
    assert [one["score"] for one in plain] == [3.0, 0.0, -2.0]


def test_null_asks_for_all_labels_whatever_the_services_own_top_k():
    assert len(ask(speaking(ThreeLabels(top_k=1)), "rude", top_k=None).json()) == 3


def test_long_texts_are_refused_unless_they_may_be_cut(client):
    long = "calm " + "x" * 30
    assert "35 tokens" in error_of(ask(client, long), 413)
    assert "35 tokens" in error_of(ask(client, long, truncation="do_not_truncate"), 413)
    for cut in (True, "longest_first"):
        assert ask(client, long, truncation=cut).status_code == 200


@pytest.mark.parametrize(
    "parameters",
    [
        {"top_k": 0}, {"top_k": -1}, {"top_k": "2"}, {"top_k": True}, {"top_k": 1.5},
        {"top_k": 10**30}, {"function_to_apply": "tanh"}, {"function_to_apply": 1},
        {"truncation": "only_first"}, {"truncation": 1}, {"truncation": []},
        {"return_all_scores": True}, {"max_length": 128},
    ],
)  # fmt: skip
def test_parameters_that_can_not_be_kept_are_refused(client, three, parameters):
    error_of(ask(client, "rude", **parameters), 422)
    assert three.seen == []


def test_parameters_that_mean_nothing_here_are_let_by(client):
    assert ask(client, "rude", padding=True, return_all_scores=False).status_code == 200
    assert post(client, PATH, {"inputs": "rude", "parameters": None}).status_code == 200
    assert post(client, PATH, {"inputs": "rude", "options": {"use_cache": 1}}).status_code == 200


@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
def test_wrong_types_are_the_callers_mistake(client, value):
    error_of(client.request("POST", PATH, content=json.dumps({"inputs": value})), 422)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"x", 400), (b"\xff", 400), (b'{"inputs": NaN}', 400), (b"[" * 1_500, 400),
        (b"[]", 422), (b"{}", 422), (b"null", 422), (b'"a"', 422),
        (b'{"inputs": "a", "parameters": []}', 422), (b'{"inputs": "a", "parameters": "x"}', 422),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_so(client, body, status):
    error_of(client.request("POST", PATH, content=body), status)


def test_a_bad_item_is_named_by_its_place(client, three):
    assert error_of(ask(client, ["calm", ""]), 422).startswith("inputs[1]: ")
    assert error_of(ask(client, ["calm", {"text_pair": "x"}]), 422).startswith("inputs[1]: ")
    three.bad_texts["grim"] = PredictionFailed("The model failed on this text.")
    told = error_of(ask(client, ["calm", "grim"]), 500, "InternalServerException")
    assert told.startswith("inputs[1]: ")
    error_of(ask(client, "grim"), 500, "InternalServerException")


def test_errors_have_the_status_that_fits_them_and_not_400(client, three):
    assert "empty list" in error_of(ask(client, []), 422)
    assert "5 texts" in error_of(ask(client, ["calm"] * 5), 413)
    error_of(ask(client, "x" * LIMITS.max_body_bytes), 413)
    error_of(ask(client, ""), 422)
    three.failure = Overloaded("Too much waits.", 2.2)
    answer = ask(client, "calm")
    error_of(answer, 429, "ThrottlingException")
    assert answer.headers["retry-after"] == "3"
    three.failure = DeadlineExceeded("Too late.")
    error_of(ask(client, "calm"), 408, "RequestTimeoutException")
    three.failure = RuntimeError("calm is what it was given")
    assert "calm" not in error_of(ask(client, "calm"), 500, "InternalServerException")


def test_ping_tells_whether_texts_can_be_classified(client, three):
    assert client.get("/ping").status_code == 200
    three.is_ready = False
    answer = client.get("/ping")
    error_of(answer, 503, "ServiceUnavailableException")
    assert answer.headers["retry-after"] == "3"


def test_ping_needs_no_key_and_texts_do(three, tmp_path):
    (tmp_path / "keys.json").write_text('{"keys": []}')
    client = speaking(three, AccessSettings(keys_file=str(tmp_path / "keys.json")))
    assert client.get("/ping").status_code == 200
    error_of(ask(client, "calm"), 401, "UnauthorizedException")


def test_a_dialect_that_is_not_spoken_has_no_paths(three, refused):
    client = speaking(three, spoken=["vllm"])
    refused(ask(client, "calm"), 404, "not_found")
    refused(client.get("/ping"), 404, "not_found")
