"""vLLM's and SGLang's dialect, and whose answer a body with `input` gets at /classify."""

from __future__ import annotations

import json

import httpx
import pytest
import without_ray
from stand_in import LIMITS, Client, LengthClassifier
from three_labels import (
    LABELS,
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

from deployments.engines.null import NullEngine
from deployments.http.app import create_app
from deployments.pipeline.errors import Overloaded, PredictionFailed
from deployments.settings import AccessSettings, Settings

PATHS = ("/v1/classify", "/vllm/classify")


@pytest.fixture
def three() -> ThreeLabels:
    return ThreeLabels()


@pytest.fixture
def client(three: ThreeLabels) -> Client:
    return speaking(three)


@pytest.mark.parametrize("path", [*PATHS, "/classify"])
def test_one_text_gets_probabilities_in_the_models_order(client, path):
    answer = post(client, path, {"model": "any", "input": "rude"})
    assert answer.status_code == 200
    told = answer.json()
    assert told.keys() == {"id", "object", "created", "model", "data", "usage"}
    assert told["id"].startswith("classify-")
    assert isinstance(told["created"], int)
    assert (told["object"], told["model"]) == ("list", "three")
    [one] = told["data"]
    assert (one["index"], one["label"], one["num_classes"]) == (0, "insult", 3)
    assert one["probs"] == close(softmax(*LOGITS["rude"]))
    assert told["usage"] == {
        "prompt_tokens": 4,
        "total_tokens": 4,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }


def test_a_list_is_answered_in_order(client):
    told = post(client, PATHS[0], {"input": ["grim", "calm", "dull"]}).json()
    assert [(one["index"], one["label"]) for one in told["data"]] == [
        (0, "threat"),
        (1, "neutral"),
        (2, "threat"),
    ]
    for one, word in zip(told["data"], ("grim", "calm", "dull"), strict=True):
        assert one["probs"] == close(softmax(*LOGITS[word]))
    assert told["usage"]["total_tokens"] == 12


def test_two_texts_are_no_pair(client, three):
    post(client, PATHS[0], {"input": ["calm", "rude"]})
    assert [item.text_pair for item in three.seen] == [None, None]


@pytest.mark.parametrize("name", ["use_activation", "activation", "softmax"])
def test_raw_scores_are_raw_by_each_of_vllms_names(client, name):
    [raw] = post(client, PATHS[0], {"input": "rude", name: False}).json()["data"]
    assert raw["probs"] == pytest.approx(list(LOGITS["rude"]))
    [told] = post(client, PATHS[0], {"input": "rude", name: True}).json()["data"]
    assert sum(told["probs"]) == pytest.approx(1)


def test_scores_of_a_multi_label_model_go_through_no_softmax():
    [told] = post(speaking(ThreeLabels(MULTI)), PATHS[0], {"input": "rude"}).json()["data"]
    assert told["probs"] == close(sigmoid(*LOGITS["rude"]))
    assert told["label"] == "insult"


def test_the_services_own_top_k_leaves_no_class_out():
    [told] = post(speaking(ThreeLabels(top_k=1)), PATHS[0], {"input": "calm"}).json()["data"]
    assert told["probs"] == close(softmax(*LOGITS["calm"]))
    assert told["num_classes"] == len(LABELS)


@pytest.mark.anyio
async def test_token_ids_are_read_as_they_are(demo_model):
    read: list[list[int]] = []

    def predict(batch, *_):
        read.extend(one.input_ids.tolist() for one in batch.split())
        return NullEngine().predict(batch)

    settings = Settings.model_validate({"model": {"id": str(demo_model), "max_length": 6}})
    replica = without_ray.tokenizer(settings, predict)
    await replica._chain.loading
    transport = httpx.ASGITransport(replica.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

        async def asked(given, status=200, **more):
            answer = await client.post(PATHS[0], json={"input": given, **more})
            assert answer.status_code == status
            return answer.json()

        [tokens] = (await client.post("/tokenize", json={"inputs": "很好"})).json()
        ids = [token["id"] for token in tokens]
        read.clear()
        [told] = (await asked("很好"))["data"]
        [same] = (await asked(ids))["data"]
        assert told == same
        first, second = (await asked([ids, ids[::-1]]))["data"]
        assert (first["index"], second["index"]) == (0, 1)
        assert read == [ids, ids, ids, ids[::-1]]
        assert (await asked([ids, ids]))["usage"]["prompt_tokens"] == 2 * len(ids)
        read.clear()
        # Without marks, and too long: nothing is added, and nothing cut that nobody asked to cut.
        many = [*range(100, 110)]
        assert "has 10 tokens; the limit is 6" in (await asked(many, 400))["error"]["message"]
        await asked(many, truncate_prompt_tokens=-1)
        assert read == [many[:6]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[1, 2], []], "input[1]: input has no token ids"),
        ([[1], "text"], "input[1]: input must be a list of token ids"),
        (["text", [1]], "input[1]: input must be a string"),
        ([1, "text"], "input must be a list of token ids"),
        ([1, True], "input must be a list of token ids"),
        ([1] * 101, "has 101 token ids; the limit is 100"),
    ],
)
def test_what_are_no_token_ids(given, said):
    client = Client(create_app(LengthClassifier(), LIMITS))
    assert said in error_of(post(client, PATHS[0], {"input": given}), 400)


def test_long_texts_are_cut_only_where_that_is_asked_for(client):
    long = "calm " + "x" * 30
    body = {"input": ["calm", long]}
    told = error_of(post(client, PATHS[0], body), 400)
    assert told.startswith("input[1]: text has 35 tokens; the limit is 20")
    cut = post(client, PATHS[0], body | {"truncate_prompt_tokens": -1})
    assert cut.json()["usage"]["total_tokens"] == 24
    assert post(client, PATHS[0], body | {"truncation": True}).json()["data"] == cut.json()["data"]
    assert post(client, PATHS[0], {"input": "calm", "truncate_prompt_tokens": None}).is_success


@pytest.mark.parametrize("cut", [0, 1, 512, -2])
def test_a_cut_of_another_length_is_refused(client, cut):
    told = error_of(post(client, PATHS[0], {"input": "calm", "truncate_prompt_tokens": cut}), 400)
    assert f"is {cut}; it can be -1" in told


def test_a_bad_item_is_named_by_its_place(client, three):
    assert error_of(post(client, PATHS[0], {"input": ["calm", ""]}), 400).startswith("input[1]: ")
    three.bad_texts["grim"] = PredictionFailed("The model failed on this text.")
    answer = post(client, PATHS[0], {"input": ["calm", "rude", "grim"]})
    assert error_of(answer, 500, "InternalServerError").startswith("input[2]: ")


def test_an_empty_list_and_one_that_is_too_long_are_told_as_400(client):
    assert "empty list" in error_of(post(client, PATHS[0], {"input": []}), 400)
    told = error_of(post(client, PATHS[0], {"input": ["calm"] * 5}), 400)
    assert "has 5 texts; the limit is 4" in told
    error_of(post(client, PATHS[0], {"input": "x" * 101}), 400)
    error_of(post(client, PATHS[0], {"input": "x" * LIMITS.max_body_bytes}), 400)


@pytest.mark.parametrize("path", [*PATHS, "/infinity/classify"])
@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
def test_wrong_types_are_the_callers_mistake(client, path, value):
    error_of(client.request("POST", path, content=json.dumps({"input": value})), 400)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"{}", b"null", b'"a"', b"\xff", b'{"input": NaN}', b"[" * 1_500]
)
def test_what_is_no_request_is_told_so(client, body):
    for path in (*PATHS, "/infinity/classify"):
        error_of(client.request("POST", path, content=body), 400)


@pytest.mark.parametrize(
    "extra",
    [
        {"truncate_prompt_tokens": "all"},
        {"truncate_prompt_tokens": True},
        {"use_activation": "yes"},
        {"softmax": 1},
    ],
)
def test_options_of_the_wrong_type_are_refused(client, extra):
    error_of(post(client, PATHS[0], {"input": "calm"} | extra), 400)


def test_fields_that_mean_nothing_here_are_let_by(client):
    extra = {"model": "m", "user": "u", "priority": 3, "add_special_tokens": True}
    assert post(client, PATHS[0], {"input": "calm"} | extra).status_code == 200


def test_the_caller_may_name_time_and_priority_by_headers(client, three):
    headers = {"x-priority": "bulk", "x-timeout-ms": "5"}
    assert post(client, PATHS[0], {"input": "calm"}, headers=headers).status_code == 200
    assert three.seen[0].flow.priority == "bulk"
    error_of(post(client, PATHS[0], {"input": "calm"}, headers={"x-timeout-ms": "x"}), 400)


def test_overload_says_when_to_come_back(client, three):
    three.failure = Overloaded("Too much waits.", 2.2)
    answer = post(client, PATHS[0], {"input": "calm"})
    error_of(answer, 429, "RateLimitError")
    assert answer.headers["retry-after"] == "3"
    three.failure = RuntimeError("calm is what it was given")
    assert "calm" not in error_of(
        post(client, PATHS[0], {"input": "calm"}), 500, "InternalServerError"
    )


@pytest.mark.parametrize("path", PATHS)
def test_a_missing_key_is_told_in_its_own_words(three, tmp_path, path):
    (tmp_path / "keys.json").write_text('{"keys": []}')
    client = speaking(three, AccessSettings(keys_file=str(tmp_path / "keys.json")))
    answer = post(client, path, {"input": "calm"})
    error_of(answer, 401, "AuthenticationError")
    assert answer.headers["www-authenticate"] == "Bearer"
    # Ours, whose path it is: no body is read before the key.
    assert post(client, "/classify", {"input": "calm"}).json()["error"]["code"] == "unauthorized"


def test_its_model_may_have_another_name(three):
    told = post(speaking(three, model_name="mood"), PATHS[0], {"input": "calm"}).json()
    assert told["model"] == "mood"
    told = post(speaking(three, model="org/mood-base/"), PATHS[0], {"input": "calm"}).json()
    assert told["model"] == "mood-base"


def test_input_at_our_path_is_vllms_by_default_and_infinitys_where_it_is_chosen(three):
    body = {"input": ["calm"]}
    assert post(speaking(three), "/classify", body).json()["object"] == "list"
    chosen = speaking(three, classify_default="infinity")
    assert post(chosen, "/classify", body).json()["object"] == "classify"
    assert post(chosen, PATHS[0], body).json()["object"] == "list"


def test_errors_of_a_body_with_input_are_in_its_speakers_words(client):
    assert "input[1]" in error_of(post(client, "/classify", {"input": ["calm", ""]}), 400)
    error_of(post(client, "/classify", {"input": [1, "calm"]}), 400)


@pytest.mark.parametrize(
    "body",
    [
        {"text": "calm", "input": "calm"},
        {"text": 1, "input": "calm"},
        {"text": [], "input": ["calm"]},
        {"inputs": "calm"},
        {},
    ],
)
def test_all_other_bodies_at_our_path_are_ours(client, refused, body):
    refused(post(client, "/classify", body), 422, "invalid_input")


def test_text_is_ours(client):
    assert post(client, "/classify", {"text": "calm"}).json()["label"] == "neutral"
    mine = post(client, "/classify", {"text": ["calm", ""]}).json()
    assert mine[1]["error"]["code"] == "empty_text"


def test_a_dialect_that_is_not_spoken_has_no_paths(three, refused):
    client = speaking(three, spoken=["infinity"])
    for path in PATHS:
        refused(post(client, path, {"input": "calm"}), 404, "not_found")
        assert path not in client.get("/openapi.json").json()["paths"]
    assert post(client, "/infinity/classify", {"input": "calm"}).status_code == 200


@pytest.mark.parametrize("spoken", [[], ["infinity"]])
def test_where_nobody_speaks_it_input_is_an_unknown_field(three, refused, spoken):
    answer = post(speaking(three, spoken=spoken), "/classify", {"input": "calm"})
    assert "the field is `text`" in refused(answer, 422, "invalid_input")


def test_it_answers_a_service_of_two_labels_too(service: LengthClassifier):
    [one] = post(speaking(service), PATHS[0], {"input": "short"}).json()["data"]
    assert one == {"index": 0, "label": "short", "probs": [0.0, 1.0], "num_classes": 2}
