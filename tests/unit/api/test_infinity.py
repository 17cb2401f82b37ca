"""infinity's dialect."""

from __future__ import annotations

import pytest
from stand_in import LIMITS, Client
from three_labels import (
    LOGITS,
    MULTI,
    ThreeLabels,
    close,
    error_of,
    post,
    sigmoid,
    softmax,
    speaking,
)

from deployments.pipeline.errors import NotReady, PredictionFailed
from deployments.settings import AccessSettings

PATH = "/infinity/classify"


@pytest.fixture
def three() -> ThreeLabels:
    return ThreeLabels()


@pytest.fixture
def client(three: ThreeLabels) -> Client:
    return speaking(three)


def test_each_text_gets_all_labels_best_first(client):
    answer = post(client, PATH, {"input": ["rude", "calm"], "model": "any"})
    assert answer.status_code == 200
    told = answer.json()
    assert told.keys() == {"object", "data", "model", "usage", "id", "created"}
    assert (told["object"], told["model"]) == ("classify", "three")
    assert told["id"].startswith("infinity-")
    assert isinstance(told["created"], int)
    assert told["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    rude, calm = told["data"]
    assert [one["label"] for one in rude] == ["insult", "threat", "neutral"]
    assert [one["label"] for one in calm] == ["neutral", "threat", "insult"]
    by_label = {one["label"]: one["score"] for one in rude}
    assert [by_label["neutral"], by_label["insult"], by_label["threat"]] == close(
        softmax(*LOGITS["rude"])
    )


def test_one_text_is_a_list_of_one(client):
    assert len(post(client, PATH, {"input": "rude"}).json()["data"]) == 1


def test_raw_scores_are_raw(client):
    [told] = post(client, PATH, {"input": ["rude"], "raw_scores": True}).json()["data"]
    assert [one["score"] for one in told] == pytest.approx([3.0, 0.0, -2.0])
    [told] = post(client, PATH, {"input": ["rude"], "raw_scores": False}).json()["data"]
    assert sum(one["score"] for one in told) == pytest.approx(1)


def test_scores_of_a_multi_label_model_go_through_no_softmax():
    [told] = post(speaking(ThreeLabels(MULTI)), PATH, {"input": ["rude"]}).json()["data"]
    assert [one["score"] for one in told] == close(sigmoid(3.0, 0.0, -2.0))


def test_the_services_own_top_k_leaves_no_label_out():
    [told] = post(speaking(ThreeLabels(top_k=1)), PATH, {"input": ["rude"]}).json()["data"]
    assert len(told) == 3


def test_long_texts_are_cut_as_it_does(client):
    assert post(client, PATH, {"input": ["calm " + "x" * 30]}).json()["usage"]["total_tokens"] == 20


def test_a_bad_item_is_named_by_its_place(client, three):
    assert error_of(post(client, PATH, {"input": ["calm", " "]}), 400).startswith("input[1]: ")
    three.bad_texts["grim"] = PredictionFailed("The model failed on this text.")
    answer = post(client, PATH, {"input": ["grim", "rude"]})
    assert error_of(answer, 500, "InternalServerError").startswith("input[0]: ")


def test_too_many_and_too_few_are_told_as_400(client):
    assert "empty list" in error_of(post(client, PATH, {"input": []}), 400)
    assert "5 texts" in error_of(post(client, PATH, {"input": ["calm"] * 5}), 400)
    error_of(post(client, PATH, {"input": ["x" * LIMITS.max_body_bytes]}), 400)


@pytest.mark.parametrize("value", ["yes", 1, None, []])
def test_raw_scores_of_the_wrong_type_are_refused(client, value):
    error_of(post(client, PATH, {"input": ["calm"], "raw_scores": value}), 400)


def test_a_service_that_loads_says_when_to_come_back(client, three):
    three.failure = NotReady("The model is loading. Try again soon.", 4.0)
    answer = post(client, PATH, {"input": ["calm"]})
    error_of(answer, 503, "InternalServerError")
    assert answer.headers["retry-after"] == "4"


def test_a_missing_key_is_told_in_its_own_words(three, tmp_path):
    (tmp_path / "keys.json").write_text('{"keys": []}')
    client = speaking(three, AccessSettings(keys_file=str(tmp_path / "keys.json")))
    error_of(post(client, PATH, {"input": ["calm"]}), 401, "AuthenticationError")


def test_it_answers_at_our_path_where_it_is_chosen(three, refused):
    client = speaking(three, classify_default="infinity")
    answer = post(client, "/classify", {"input": ["rude"], "raw_scores": True})
    assert answer.json()["data"][0][0] == {"label": "insult", "score": 3.0}
    error_of(post(client, "/classify", {"input": [""]}), 400)
    refused(post(client, "/classify", {"text": "a", "input": ["a"]}), 422, "invalid_input")


def test_a_dialect_that_is_not_spoken_has_no_paths(three, refused):
    client = speaking(three, spoken=["vllm"], classify_default="infinity")
    refused(post(client, PATH, {"input": ["calm"]}), 404, "not_found")
    refused(post(client, "/classify", {"input": ["calm"]}), 422, "invalid_input")
    assert PATH not in client.get("/openapi.json").json()["paths"]
