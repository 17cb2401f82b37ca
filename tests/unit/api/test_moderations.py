"""OpenAI's moderations: which categories there are, and when one flags."""

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
    error_of,
    post,
    sigmoid,
    softmax,
    speaking,
)

from deployments.pipeline.errors import Overloaded, PredictionFailed
from deployments.settings import AccessSettings

PATH = "/v1/moderations"
NAMES = {"insult": "harassment", "threat": "harassment/threatening"}


@pytest.fixture
def three() -> ThreeLabels:
    return ThreeLabels()


@pytest.fixture
def client(three: ThreeLabels) -> Client:
    return speaking(three, moderation_categories=NAMES)


@pytest.fixture
def multi() -> Client:
    return speaking(ThreeLabels(MULTI))


def results_of(client: Client, value) -> list:
    answer = post(client, PATH, {"input": value})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_the_answer_has_openais_shape(client):
    answer = post(client, PATH, {"input": "rude", "model": "omni-moderation-latest"})
    told = answer.json()
    assert told.keys() == {"id", "model", "results"}
    assert told["id"].startswith("modr-")
    assert told["model"] == "three"
    [result] = told["results"]
    scores = result.pop("category_scores")
    assert result == {
        "flagged": True,
        "categories": {"harassment": True, "harassment/threatening": False, "neutral": False},
        "category_applied_input_types": {
            "harassment": ["text"],
            "harassment/threatening": ["text"],
            "neutral": ["text"],
        },
    }
    names = ("neutral", "harassment", "harassment/threatening")
    assert [scores[name] for name in names] == close(softmax(*LOGITS["rude"]))


def test_each_string_of_a_list_gets_a_result(client):
    flagged = [one["flagged"] for one in results_of(client, ["calm", "grim", "rude"])]
    assert flagged == [False, True, True]


def test_a_label_that_is_not_named_flags_nothing_where_one_label_always_wins(client, three):
    [calm] = results_of(client, "calm")
    assert not any(calm["categories"].values())
    [rude] = results_of(speaking(three), "rude")
    assert (rude["flagged"], set(rude["categories"].values())) == (False, {False})
    assert rude["categories"].keys() == {"neutral", "insult", "threat"}


def test_a_multi_label_model_flags_each_label_over_its_threshold(multi):
    calm, grim, dull = results_of(multi, ["calm", "grim", "dull"])
    assert grim["categories"] == {"neutral": False, "insult": True, "threat": True}
    scores = [grim["category_scores"][label] for label in ("neutral", "insult", "threat")]
    assert scores == close(sigmoid(*LOGITS["grim"]))
    assert calm["categories"] == {"neutral": True, "insult": False, "threat": True}
    assert (dull["flagged"], any(dull["categories"].values())) == (False, False)


def test_the_services_threshold_is_the_one_that_counts():
    [grim] = results_of(speaking(ThreeLabels(MULTI, threshold=0.9)), "grim")
    assert grim["categories"] == {"neutral": False, "insult": False, "threat": True}


@pytest.mark.parametrize("problem_type", ["single_label_classification", MULTI])
def test_several_labels_may_be_one_category(problem_type):
    names = {"insult": "harassment", "threat": "harassment"}
    client = speaking(ThreeLabels(problem_type), moderation_categories=names)
    [rude] = results_of(client, "rude")
    assert rude["categories"] == {"neutral": False, "harassment": True}
    scores = sigmoid(3.0) if problem_type == MULTI else softmax(*LOGITS["rude"])[1:2]
    assert [rude["category_scores"]["harassment"]] == close(scores)


def test_all_categories_are_told_whatever_the_services_top_k():
    [rude] = results_of(speaking(ThreeLabels(top_k=1)), "rude")
    assert rude["categories"].keys() == {"neutral", "insult", "threat"}


def test_parts_stand_together_and_get_one_result_of_their_worst(client, three):
    assert results_of(client, [part("rude")]) == results_of(client, "rude")
    [both] = results_of(client, [part("calm"), part("rude"), part("grim")])
    assert both["categories"] == {
        "harassment": True,
        "harassment/threatening": True,
        "neutral": False,
    }
    worst = [max(softmax(*LOGITS[word])[i] for word in ("calm", "rude", "grim")) for i in range(3)]
    names = ("neutral", "harassment", "harassment/threatening")
    assert [both["category_scores"][name] for name in names] == close(worst)


def test_a_text_that_is_not_read_to_its_end_is_refused_unless_it_may_be_cut(client):
    long = "calm " + "x" * 30
    told = error_of(post(client, PATH, {"input": ["calm", long]}), 400)
    assert told.startswith("input[1]: text has 35 tokens")
    assert post(client, PATH, {"input": long, "truncation": True}).status_code == 200
    error_of(post(client, PATH, {"input": "calm", "truncation": "yes"}), 400)


def test_images_are_refused(client, three):
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    for value in ([image], [part("calm"), image]):
        told = error_of(post(client, PATH, {"input": value}), 400)
        assert "holds an image; this service reads text" in told
    assert three.seen == []


@pytest.mark.parametrize("value", [[1, 2], [[1, 2]], [["calm"]]])
def test_token_ids_are_refused(client, value):
    assert "token ids" in error_of(post(client, PATH, {"input": value}), 400)


@pytest.mark.parametrize("value", [*WRONG_TYPES, [part("calm"), "rude"]], ids=repr)
def test_wrong_types_are_the_callers_mistake(client, value):
    error_of(client.request("POST", PATH, content=json.dumps({"input": value})), 400)


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b"null", b"\xff", b"[" * 1_500])
def test_what_is_no_request_is_told_so(client, body):
    error_of(client.request("POST", PATH, content=body), 400)


def test_a_bad_item_is_named_by_its_place(client, three):
    for value in (["calm", ""], [part("calm"), part("")], [part("calm"), {"type": "text"}]):
        told = error_of(post(client, PATH, {"input": value}), 400)
        assert told.startswith("input[1]: ")
    three.bad_texts["grim"] = PredictionFailed("The model failed on this text.")
    answer = post(client, PATH, {"input": ["calm", "grim"]})
    assert error_of(answer, 500, "InternalServerError").startswith("input[1]: ")


def test_errors_are_openais(client, three, tmp_path):
    assert "empty list" in error_of(post(client, PATH, {"input": []}), 400)
    assert "5 texts" in error_of(post(client, PATH, {"input": ["calm"] * 5}), 400)
    error_of(post(client, PATH, {"input": "x" * LIMITS.max_body_bytes}), 400)
    three.failure = Overloaded("Too much waits.", 2.2)
    answer = post(client, PATH, {"input": "calm"})
    error_of(answer, 429, "RateLimitError")
    assert answer.headers["retry-after"] == "3"
    (tmp_path / "keys.json").write_text('{"keys": []}')
    shut = speaking(three, AccessSettings(keys_file=str(tmp_path / "keys.json")))
    error_of(post(shut, PATH, {"input": "calm"}), 401, "AuthenticationError")


def test_a_dialect_that_is_not_spoken_has_no_paths(three, refused):
    client = speaking(three, spoken=["vllm"])
    refused(post(client, PATH, {"input": "calm"}), 404, "not_found")
