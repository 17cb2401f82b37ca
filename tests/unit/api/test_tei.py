"""Text Embeddings Inference's questions, as its server and huggingface_hub's client put them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import without_ray
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError
from stand_in import LIMITS, Client, LengthClassifier, served

from deployments.access.keys import hash_of, new_token
from deployments.engines.null import NullEngine
from deployments.http.app import create_app
from deployments.http.dialects import dialects
from deployments.http.examples import ANSWERS
from deployments.pipeline.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotReady,
    Overloaded,
    PredictionFailed,
    TextTooLong,
)
from deployments.pipeline.types import Options, TextInput
from deployments.settings import AccessSettings, DialectSettings, LimitSettings, Settings

KEY = new_token()
SHORT = [{"score": 1.0, "label": "short"}, {"score": 0.0, "label": "long"}]
LONG = [{"score": 1.0, "label": "long"}, {"score": 0.0, "label": "short"}]


class Service(LengthClassifier):
    """Best first, as the real one."""

    def _classify(self, item: Any) -> Any:
        answer = super()._classify(item)
        if isinstance(answer, dict):
            ranked = sorted(answer["scores"].items(), key=lambda one: -one[1])
            answer["scores"] = dict(ranked[: item.options.top_k])
        return answer


@pytest.fixture
def service() -> Service:
    return Service()


def ask(client: Client, value: Any, path: str = "/predict", **headers: str) -> httpx.Response:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    sent = {"content-type": "application/json", **headers}
    return client.request("POST", path, content=body, headers=sent)


def seen(service: Service) -> Options:
    (item,) = service.seen
    assert isinstance(item, TextInput)
    return item.options


# Shapes


@pytest.mark.parametrize("path", ["/predict", "/"])
@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("good", SHORT),
        (["good"], SHORT),
        (["good", "and long"], LONG),
        ([["good"]], [SHORT]),
        ([["good"], ["good", "and long"], ["a longer text"]], [SHORT, LONG, LONG]),
    ],
)
def test_every_shape_of_inputs_gets_its_shape_of_answer(
    client: Client, path: str, inputs: Any, expected: Any
) -> None:
    answer = ask(client, {"inputs": inputs}, path)
    assert (answer.status_code, answer.json()) == (200, expected)


def test_two_texts_are_a_pair_not_a_batch(client: Client, service: Service) -> None:
    ask(client, {"inputs": ["a", "b"]})
    (item,) = service.seen
    assert isinstance(item, TextInput)
    assert (item.text, item.text_pair) == ("a", "b")


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        ({}, Options(truncation=False)),
        ({"truncate": None}, Options(truncation=False)),
        ({"truncate": True}, Options(truncation_side="right")),
        ({"truncate": True, "truncation_direction": "Left"}, Options(truncation_side="left")),
        ({"truncate": True, "truncation_direction": "left"}, Options(truncation_side="left")),
        ({"truncate": True, "truncation_direction": "right"}, Options(truncation_side="right")),
        ({"raw_scores": True}, Options(truncation=False, raw_scores=True)),
        ({"model": "m", "other": [1]}, Options(truncation=False)),
        ({"parameters": {}}, Options(truncation=False)),
        ({"parameters": {"function_to_apply": "none"}}, Options(truncation=False, raw_scores=True)),
        (
            {"parameters": {"function_to_apply": "sigmoid", "unknown": 1}},
            Options(truncation=False, activation="sigmoid"),
        ),
    ],
)
def test_options_mean_what_they_say_and_unknown_ones_nothing(
    client: Client, service: Service, sent: Any, options: Options
) -> None:
    assert ask(client, {"inputs": "good", **sent}).status_code == 200
    got = seen(service)
    assert (got.truncation, got.truncation_side) == (options.truncation, options.truncation_side)
    assert (got.raw_scores, got.activation) == (options.raw_scores, options.activation)
    assert got.top_k is not None
    assert got.top_k > 1_000_000  # all labels, whatever the service's default is


def test_beside_parameters_one_text_is_answered_as_a_list_in_a_list(client: Client) -> None:
    sent = {"inputs": "good", "parameters": {"top_k": 1}}
    assert ask(client, sent).json() == [SHORT[:1]]
    assert ask(client, {"inputs": "good", "parameters": None}).json() == [SHORT]


# Errors


def told(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert body.keys() == {"error", "error_type"}
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, body["error_type"], body["error"]


@pytest.mark.parametrize(
    ("sent", "status", "kind", "message"),
    [
        (b"{", 400, "Validation", "not valid JSON"),
        (b"", 400, "Validation", "The body is empty"),
        ({"inputs": ""}, 400, "Empty", "empty or only spaces"),
        ({"inputs": []}, 400, "Empty", "`inputs` cannot be empty"),
        ({"inputs": [["a"], [""]]}, 400, "Empty", "inputs[1]: inputs is empty"),
        ({}, 422, "Validation", "missing required field `inputs`"),
        ({"inputs": 1}, 422, "Validation", "Expected `str | array`"),
        ({"inputs": [1]}, 422, "Validation", "inputs[0] must be a list of 1 or 2 texts"),
        ({"inputs": [[]]}, 422, "Validation", "inputs[0] must be a list of 1 or 2 texts"),
        ({"inputs": [["a"], "b"]}, 422, "Validation", "inputs[1] must be a list"),
        ({"inputs": [["a"], ["a", "b", "c"]]}, 422, "Validation", "inputs[1] must be a list"),
        ({"inputs": [["a"], [1]]}, 422, "Validation", "inputs[1]: inputs must be a string"),
        ({"inputs": ["a", "b", "c"]}, 422, "Validation", "neither a text nor a pair"),
        ({"inputs": ["a", ["b"]]}, 422, "Validation", "neither a text nor a pair"),
        ({"inputs": ["a", "b"], "parameters": {}}, 422, "Validation", "beside `parameters`"),
        ({"inputs": "a", "truncation_direction": "up"}, 422, "Validation", "truncation_direction"),
        ({"inputs": "a", "parameters": {"top_k": 0}}, 422, "Validation", "top_k"),
        (
            {"inputs": "a", "parameters": {"function_to_apply": "relu"}},
            422,
            "Validation",
            "function_to_apply",
        ),
        ({"inputs": [["a"]] * 5}, 413, "Validation", "inputs has 5 texts; the limit is 4"),
        ({"inputs": "a" * 101}, 413, "Validation", "inputs has 101 characters"),
        ({"inputs": "a" * 2_000}, 413, "Validation", "The body has"),
    ],
)
def test_what_is_wrong_with_a_request_has_teis_status_and_type(
    client: Client, service: Service, sent: Any, status: int, kind: str, message: str
) -> None:
    answer = told(ask(client, sent))
    assert answer[:2] == (status, kind)
    assert message in answer[2]
    assert service.seen == []


TOO_LONG = TextTooLong("text has 600 tokens; the limit is 512. Shorten it or send truncation=true.")


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (Overloaded("Too many texts wait."), 429, "Overloaded"),
        (NotReady("The model is loading."), 503, "Unhealthy"),
        (PredictionFailed("The model failed on this text."), 424, "Backend"),
        (DeadlineExceeded("No answer in 1 s."), 408, "Backend"),
        (InvalidInput("text is not valid Unicode."), 422, "Validation"),
        (TOO_LONG, 413, "Validation"),
        (RuntimeError("nobody's business"), 424, "Backend"),
    ],
)
def test_what_happens_to_a_text_has_teis_status_and_type(
    client: Client, service: Service, failure: Exception, status: int, kind: str
) -> None:
    service.failure = failure
    answer = ask(client, {"inputs": "good"})
    assert told(answer)[:2] == (status, kind)
    assert "nobody" not in answer.text
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_one_bad_text_fails_its_batch_and_is_named(client: Client, service: Service) -> None:
    service.bad_texts = {"bad": TOO_LONG}
    status, kind, message = told(ask(client, {"inputs": [["a"], ["b"], ["bad"]]}))
    assert (status, kind) == (413, "Validation")
    assert message.startswith("inputs[2]: `inputs` must have less than 512 tokens. Given: 600.")


# Keys


def test_keys_are_refused_in_teis_words_and_the_index_stays_open(
    service: Service, tmp_path: Path
) -> None:
    shop, other = new_token(), new_token()
    keys = [
        {"id": "shop", "sha256": hash_of(shop), "texts_per_day": 3},
        {"id": "other", "sha256": hash_of(other), "scopes": ["explain"]},
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": keys}))
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"), docs_public=True)
    app = create_app(service, LIMITS, access)
    client, prefixed = Client(app), Client(app, root_path="/nlp")
    assert client.get("/").status_code == 200
    for path in ("/", "/predict", "/tokenize", "/decode"):
        answer = ask(client, {"inputs": "good"}, path)
        assert told(answer)[:2] == (401, "Validation")
        assert answer.headers["www-authenticate"] == "Bearer"
        refused = ask(client, {"inputs": "good"}, path, authorization=f"Bearer {other}")
        assert told(refused)[:2] == (403, "Validation")
    assert told(ask(prefixed, {"inputs": "good"}, ""))[0] == 401
    assert service.seen == []
    let_in = {"authorization": f"Bearer {shop}"}
    assert ask(client, {"inputs": "good"}, "/", **let_in).status_code == 200
    assert ask(client, {"inputs": ["a", "b"]}, "/tokenize", **let_in).status_code == 200
    assert told(ask(client, {"inputs": "good"}, **let_in))[:2] == (429, "Overloaded")
    assert ask(client, {"ids": [1]}, "/decode", **let_in).status_code == 429


def test_without_keys_for_the_index_it_is_shut_too(service: Service, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"), docs_public=False)
    client = Client(create_app(service, LIMITS, access))
    answer = client.get("/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_where_tei_is_not_spoken_none_of_its_paths_answers(service: Service) -> None:
    spoken = dialects(LIMITS, DialectSettings(spoken=["vllm"]))
    client = Client(create_app(service, LIMITS, spoken=spoken))
    paths = ("/predict", "/tokenize", "/decode", "/")
    assert [ask(client, {"inputs": "a"}, path).status_code for path in paths] == [404] * 3 + [405]


def test_below_a_prefix_the_prefix_alone_is_the_root(prefixed: Client) -> None:
    assert ask(prefixed, {"inputs": "good"}, "").json() == SHORT
    assert ask(prefixed, {"inputs": "good"}, "/").json() == SHORT


def test_the_document_shows_the_root_with_its_post(client: Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert paths["/"].keys() == {"post"}
    assert {"/predict", "/tokenize", "/decode"} <= paths.keys()


# Tokens


def test_tokens_of_one_text_and_of_several(client: Client) -> None:
    mark = {"id": 0, "text": "[M]", "special": True, "start": None, "stop": None}
    a = {"id": 97, "text": "a", "special": False, "start": 0, "stop": 1}
    assert ask(client, {"inputs": "a"}, "/tokenize").json() == [[mark, a]]
    sent = {"inputs": ["a", "aa"], "add_special_tokens": False, "prompt_name": None}
    tokens = ask(client, sent, "/tokenize").json()
    assert [[token["start"] for token in row] for row in tokens] == [[0], [0, 1]]


def test_texts_of_ids(client: Client) -> None:
    assert ask(client, {"ids": [0, 97]}, "/decode").json() == ["a"]
    sent = {"ids": [[97], [98, 99]], "skip_special_tokens": False}
    assert ask(client, sent, "/decode").json() == ["a", "bc"]


@pytest.mark.parametrize(
    ("path", "sent", "status", "kind"),
    [
        ("/tokenize", {"inputs": ""}, 400, "Empty"),
        ("/tokenize", {"inputs": []}, 400, "Empty"),
        ("/tokenize", {"inputs": ["a", 1]}, 422, "Validation"),
        ("/tokenize", {"inputs": [["a", "b"]]}, 422, "Validation"),
        ("/tokenize", {}, 422, "Validation"),
        ("/tokenize", {"inputs": ["a"] * 5}, 413, "Validation"),
        ("/tokenize", {"inputs": ["a" * 60] * 2}, 413, "Validation"),
        ("/decode", {"ids": []}, 400, "Empty"),
        ("/decode", {"ids": [[1], []]}, 400, "Empty"),
        ("/decode", {"ids": [1, [2, 3]]}, 422, "Validation"),
        ("/decode", {"ids": [-1]}, 422, "Validation"),
        ("/decode", {"ids": [2**32]}, 422, "Validation"),
        ("/decode", {"ids": "1"}, 422, "Validation"),
        ("/decode", {"ids": [[1]] * 5}, 413, "Validation"),
        ("/decode", {"ids": [1] * 101}, 413, "Validation"),
    ],
)
def test_wrong_questions_for_tokens(
    client: Client, path: str, sent: Any, status: int, kind: str
) -> None:
    assert told(ask(client, sent, path))[:2] == (status, kind)


# huggingface_hub's client


@pytest.fixture
def url(service: Service, limits: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # Its session refuses even this machine where it is offline; it asks nobody else here.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    with served(create_app(service, limits)) as address:
        yield address


@pytest.mark.parametrize("path", ["", "/", "/predict"])
def test_the_hubs_client_reads_the_answers(url: str, path: str, service: Service) -> None:
    client = InferenceClient(model=url + path, token=KEY)
    answer = client.text_classification("a long text")
    assert [(one.label, one.score) for one in answer] == [("long", 1.0), ("short", 0.0)]
    (best,) = client.text_classification("a long text", top_k=1)
    assert best.label == "long"
    client.text_classification("good", function_to_apply="none")
    client.text_classification("good", function_to_apply="softmax")
    *_, none, softmax = [item.options for item in service.seen if isinstance(item, TextInput)]
    assert (none.raw_scores, none.activation) == (True, None)
    assert (softmax.raw_scores, softmax.activation) == (False, "softmax")


def test_the_hubs_client_shows_errors(url: str) -> None:
    client = InferenceClient(model=url, token=KEY)
    with pytest.raises(HfHubHTTPError, match="empty or only spaces") as caught:
        client.text_classification(" ")
    assert caught.value.response.status_code == 400


class Told(Service):
    """What the real service says of itself at GET /info."""

    async def info(self, certificate: bool = False) -> dict[str, Any]:
        return dict(ANSWERS["info"])


def test_the_hubs_client_gets_teis_info_where_that_is_chosen(
    limits: LimitSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    spoken = dialects(limits, DialectSettings(info="tei"), "models/demo")
    with served(create_app(Told(), limits, spoken=spoken)) as address:
        said = InferenceClient(model=address, provider="hf-inference").get_endpoint_info()
    ours = ANSWERS["info"]
    assert said["model_id"] == ours["model"]
    assert said["served_model_name"] == "demo"
    assert [*said["model_type"]["classifier"]["id2label"].values()] == list(ours["labels"])
    assert said["max_input_length"] == ours["max_length"]
    assert said["max_client_batch_size"] == limits.max_batch_texts
    client = Client(create_app(Told(), limits, spoken=spoken))
    assert "tei_info" in client.get("/openapi.json").text
    assert Client(create_app(Told(), limits)).get("/info").json() == ours


# With the real tokenizer


@pytest.mark.anyio
async def test_the_real_service_cuts_at_the_end_that_is_asked_for_and_tells_tokens(
    demo_model: Path,
) -> None:
    ids: list[list[int]] = []

    def predict(batch: Any, *_: Any) -> Any:
        ids.extend(one.input_ids.tolist() for one in batch.split())
        return NullEngine().predict(batch)

    settings = Settings.model_validate({"model": {"id": str(demo_model), "max_length": 6}})
    replica = without_ray.tokenizer(settings, predict)
    await replica._chain.loading
    transport = httpx.ASGITransport(replica.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

        async def asked(path: str, **body: Any) -> Any:
            answer = await client.post(path, json=body)
            return answer.json() if answer.status_code == 200 else told(answer)

        (tokens,) = await asked("/tokenize", inputs="很好a😀 不错真的")
        text = "很好a😀 不错真的".encode()
        spans = [(token["text"], token["start"], token["stop"]) for token in tokens[1:-1]]
        assert all(text[start:stop].decode() == name for name, start, stop in spans)
        assert [name for name, *_ in spans] == ["很", "好", "a😀", "不", "错", "真", "的"]
        whole = [token["id"] for token in tokens]
        bare = await asked("/tokenize", inputs="很好", add_special_tokens=False)
        assert [token["id"] for token in bare[0]] == whole[1:3]
        assert await asked("/decode", ids=whole[4:6]) == ["不 错"]
        ids.clear()
        long, cut = "很好a😀 不错真的", {"truncate": True}
        labels = await asked("/predict", inputs=long, **cut, truncation_direction="Left")
        names = json.loads((demo_model / "config.json").read_text())["id2label"]
        assert [one["label"] for one in labels] == [names["0"], names["1"]]
        await asked("/predict", inputs=long, **cut)
        assert ids == [[whole[0], *whole[-5:]], [*whole[:5], whole[-1]]]
        status, kind, message = await asked("/predict", inputs=[["好"], [long]])
        assert (status, kind) == (413, "Validation")
        assert message.startswith("inputs[1]: `inputs` must have less than 6 tokens. Given: 9.")
