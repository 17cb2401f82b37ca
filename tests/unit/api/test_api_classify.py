"""POST /classify with JSON: what is answered, and what is refused in which words."""

from __future__ import annotations

import pytest

from deployments.pipeline.errors import Overloaded, PredictionFailed, TextTooLong
from deployments.pipeline.types import Options, TextInput


def test_one_text_gets_one_object(client):
    response = client.classify({"text": "a long enough text"})
    assert response.status_code == 200
    assert response.json() == {
        "label": "long",
        "score": 1.0,
        "scores": {"long": 1.0, "short": 0.0},
        "tokens": 18,
        "truncated": False,
    }
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))


def test_texts_get_a_list_in_order(client):
    response = client.classify({"text": ["short", "a long enough text", "短"]})
    assert [answer["label"] for answer in response.json()] == ["short", "long", "short"]


def test_a_list_of_one_gets_a_list(client):
    assert len(client.classify({"text": ["a"]}).json()) == 1


def test_text_and_options_arrive_as_sent(client, service):
    client.classify(
        {"text": "很好 😀\x00", "top_k": 2, "truncation": False, "raw_scores": True, "threshold": 0}
    )
    options = Options(top_k=2, raw_scores=True, threshold=0.0, truncation=False)
    assert service.seen == [TextInput("很好 😀\x00", None, options)]


def test_absent_and_null_options_are_the_defaults(client, service):
    client.classify({"text": "a", "text_pair": None, "top_k": None, "threshold": None})
    assert service.seen == [TextInput("a")]


def test_a_pair_travels_with_its_text(client, service):
    client.classify({"text": "a", "text_pair": "b"})
    client.classify({"text": ["c", "d"], "text_pair": ["e", None]})
    assert service.seen == [TextInput("a", "b"), TextInput("c", "e"), TextInput("d")]


def test_labels_stay_utf8(client, service):
    service.bad_texts["a"] = PredictionFailed("模型没有回答")
    assert "模型没有回答".encode() in client.classify({"text": "a"}).content


BAD_ITEMS = [
    ("", "empty_text", "empty"),
    (" \n\t ", "empty_text", "only spaces"),
    ("x" * 101, "text_too_long", "101 characters; the limit is 100"),
    (7, "invalid_input", "got a number"),
    (True, "invalid_input", "got a boolean"),
    (None, "invalid_input", "got null"),
    (["nested"], "invalid_input", "got a list"),
    ({"text": "a"}, "invalid_input", "got an object"),
]


@pytest.mark.parametrize(("bad", "code", "says"), BAD_ITEMS)
def test_a_bad_item_fails_alone(client, bad, code, says):
    response = client.classify({"text": ["fine", bad, "also fine"]}, headers={"x-request-id": "r7"})
    first, error, last = response.json()
    assert response.status_code == 200
    assert first["label"] == last["label"] == "short"
    assert error.keys() == {"error"}
    assert (error["error"]["code"], error["error"]["request_id"]) == (code, "r7")
    assert says in error["error"]["message"]


def test_half_a_surrogate_pair_fails_alone(client):
    response = client.send(rb'{"text": ["fine", "ab\ud83d", "\ud83d\ude00"]}')
    first, error, last = response.json()
    assert first["label"] == last["label"] == "short"
    assert error["error"]["code"] == "invalid_input"
    assert "not valid Unicode at character 2" in error["error"]["message"]


def test_a_number_out_of_range_fails_alone(client):
    first, error = client.send(b'{"text": ["fine", 1e999]}').json()
    assert first["label"] == "short"
    assert "got a number" in error["error"]["message"]


def test_a_bad_pair_fails_alone(client):
    response = client.classify({"text": ["a", "b", "c"], "text_pair": ["d", 7, " "]})
    first, wrong, blank = response.json()
    assert first["label"] == "short"
    assert wrong["error"]["message"] == "text_pair must be a string; got a number."
    assert "text_pair is empty" in blank["error"]["message"]


def test_what_the_service_refuses_stays_in_its_place(client, service):
    service.bad_texts["deep"] = TextTooLong("text has 600 tokens; the limit is 512.")
    first, error = client.classify({"text": ["fine", "deep"]}).json()
    assert first["label"] == "short"
    assert error["error"]["code"] == "text_too_long"


@pytest.mark.parametrize(
    ("text", "status", "code", "says"),
    [
        ("", 422, "empty_text", "Send some words"),
        ("　", 422, "empty_text", "only spaces"),
        ("x" * 101, 413, "text_too_long", "101 characters; the limit is 100. Shorten it"),
    ],
)
def test_a_single_bad_text_has_the_status_of_its_error(client, refused, text, status, code, says):
    assert says in refused(client.classify({"text": text}), status, code)


def test_the_service_answers_for_a_single_text(client, service, refused):
    service.bad_texts["a"] = PredictionFailed("The model failed on this text.")
    refused(client.classify({"text": "a"}), 500, "prediction_failed")


def test_a_list_that_was_refused_as_a_whole_says_so_in_its_status(client, service, refused):
    full = Overloaded("2000 texts are waiting. Try again in 3 s.", 2.2)
    service.bad_texts = {"a": full, "b": full}
    response = client.classify({"text": ["a", "", "b"]})
    refused(response, 429, "overloaded")
    assert response.headers["retry-after"] == "3"
    assert client.classify({"text": ["a", "c"]}).status_code == 200


@pytest.mark.parametrize(
    ("sent", "right"),
    [
        ("texts", "text"),
        ("Text", "text"),
        ("inputs", "text"),
        ("instances", "text"),
        ("sequences", "text"),
        ("textpair", "text_pair"),
        ("topk", "top_k"),
        ("truncate", "truncation"),
        ("raw_score", "raw_scores"),
        ("treshold", "threshold"),
    ],
)
def test_an_unknown_field_is_told_the_right_one(client, refused, sent, right):
    message = refused(client.classify({sent: "a"}), 422, "invalid_input")
    assert f"Unknown field `{sent}`; the field is `{right}`." in message


def test_an_unknown_field_like_none_of_ours_gets_the_list(client, refused):
    message = refused(client.classify({"text": "a", "zzz": 1}), 422, "invalid_input")
    assert "`zzz`" in message
    assert (
        "`text`, `text_pair`, `top_k`, `truncation`, `long_text`, `raw_scores`, `threshold`"
        in message
    )


@pytest.mark.parametrize("name", ["a whole sentence as a name", "x" * 50, "\ud800", "机密"])
def test_a_name_that_may_be_a_text_is_not_repeated(client, refused, name):
    body = b'{"text": "a", "%s": 1}' % name.encode("ascii", "backslashreplace")
    message = refused(client.send(body), 422, "invalid_input")
    assert message.startswith("The body has an unknown field.")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"text": "a", "top_k": 0}, "`top_k`: expected int >= 1. How many labels"),
        ({"text": "a", "top_k": 1_000_001}, "`top_k`: expected int <= 1000000"),
        ({"text": "a", "top_k": 10**30}, "`top_k`: expected int <= 1000000"),
        ({"text": "a", "top_k": 1.5}, "`top_k`: expected int or null, got float"),
        ({"text": "a", "top_k": True}, "`top_k`: expected int or null, got bool"),
        ({"text": "a", "top_k": "3"}, "`top_k`: expected int or null, got str"),
        ({"text": "a", "top_k": "\ud800"}, "not valid Unicode"),
        ({"text": "a", "threshold": 1.1}, "`threshold`: expected float <= 1.0"),
        ({"text": "a", "threshold": -1}, "`threshold`: expected float >= 0.0"),
        ({"text": "a", "truncation": "yes"}, "`truncation`: expected bool, got str"),
        ({"text": "a", "raw_scores": 1}, "`raw_scores`: expected bool, got int"),
        ({"text": 3}, "`text`: expected str or array, got int"),
        ({"text": None}, "`text`: expected str or array, got null"),
        ({"text": {"a": 1}}, "`text`: expected str or array, got object"),
        ({"text": "a", "text_pair": 3}, "`text_pair`: expected str or array or null, got int"),
        ({}, 'The field `text` is missing. Send {"text": "..."}.'),
        ([], "must be a JSON object"),
        ("text", "must be a JSON object"),
        (None, "must be a JSON object"),
        ({"text": []}, "`text` is an empty list. Send at least 1 text."),
        ({"text": "a", "text_pair": ["b"]}, "Make both a list."),
        ({"text": ["a"], "text_pair": "b"}, "Make both a list."),
        ({"text": ["a"], "text_pair": ["b", "c"]}, "1 texts and `text_pair` has 2"),
    ],
)
def test_wrong_values_are_named_with_what_is_right(client, service, refused, value, says):
    assert says in refused(client.classify(value), 422, "invalid_input")
    assert service.seen == []


def test_too_many_texts(client, refused):
    message = refused(client.classify({"text": ["a"] * 5}), 413, "too_large")
    assert message == "text has 5 texts; the limit is 4. Send several requests."
    assert client.classify({"text": ["a"] * 4}).status_code == 200
