"""The Open Inference Protocol: tensors in JSON, tensors behind it, and all that may be wrong."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_in import LIMITS, Client, LengthClassifier

from deployments.http.app import create_app
from deployments.pipeline.errors import Overloaded, PredictionFailed
from deployments.pipeline.types import Answer, Options, TextInput
from deployments.settings import AccessSettings

INFER = "/v2/models/demo/infer"
HEADER = "inference-header-content-length"
LONG = "long enough to be long"


def tensor(data: Any, shape: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    told = {"name": "text", "shape": shape or [len(data)], "datatype": "BYTES", "data": data}
    return {key: value for key, value in {**told, **more}.items() if value is not ...}


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in elements)


def infer(client: Client, value: Any, path: str = INFER, **options: Any) -> httpx.Response:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return client.request("POST", path, content=content, **options)


def infer_binary(
    client: Client, value: Any, raw: bytes, length: str | None = None, **options: Any
) -> httpx.Response:
    head = json.dumps(value).encode()
    headers = {HEADER: length or str(len(head)), "content-type": "application/octet-stream"}
    return client.request("POST", INFER, content=head + raw, headers=headers, **options)


def binary(shape: list[int], size: Any, **more: Any) -> dict[str, Any]:
    """A request with one tensor whose data stands behind the JSON."""
    parameters = {"binary_data_size": size, **more}
    return {"inputs": [tensor(..., shape, parameters=parameters)]}


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    assert answer.headers["content-type"] == "application/json"
    message: str = answer.json()["error"]
    return message


def texts_of(service: LengthClassifier) -> list[tuple[str, str | None]]:
    return [(one.text, one.text_pair) for one in service.seen if isinstance(one, TextInput)]


@pytest.mark.parametrize("path", [INFER, "/v2/models/demo/versions/1/infer"])
def test_it_answers_three_tensors(client: Client, path: str) -> None:
    answer = infer(client, {"id": "7", "inputs": [tensor(["good", LONG])]}, path)
    assert answer.json() == {
        "model_name": "demo",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["short", "long"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [1.0, 1.0]},
            {
                "name": "scores",
                "datatype": "FP32",
                "shape": [2, 2],
                "data": [0.0, 1.0, 1.0, 0.0],
                "parameters": {"labels": ["long", "short"]},
            },
        ],
    }


def test_scores_stand_in_the_order_of_the_models_labels(
    client: Client, service: LengthClassifier
) -> None:
    ranked = {"b": 0.7, "c": 0.2, "a": 0.1}
    told: Answer = {"label": "b", "score": 0.7, "scores": ranked, "label_ids": [1, 2, 0]}
    service._classify = lambda item: {**told, "truncated": True}  # type: ignore[method-assign]
    answer = infer(client, {"inputs": [tensor(["x"])]}).json()
    assert answer["outputs"][2]["data"] == [0.1, 0.7, 0.2]
    assert answer["outputs"][2]["parameters"] == {"labels": ["a", "b", "c"]}
    assert answer["parameters"] == {"truncated": 1}


def test_without_an_id_the_requests_own_stands_there(client: Client) -> None:
    answer = infer(client, {"inputs": [tensor(["a"])]}, headers={"x-request-id": "r1"})
    assert answer.json()["id"] == "r1"


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (["a", "b"], [2]),
        (["a", "b"], [2, 1]),
        ([["a"], ["b"]], [2, 1]),
        ([["a", "b"]], [2]),
    ],
)
def test_texts_may_be_nested_or_not(
    client: Client, service: LengthClassifier, data: Any, shape: list[int]
) -> None:
    assert infer(client, {"inputs": [tensor(data, shape, name="any")]}).status_code == 200
    assert texts_of(service) == [("a", None), ("b", None)]


@pytest.mark.parametrize(
    "inputs",
    [
        [tensor(["a", "b", "c", "d"], [2, 2])],
        [tensor([["a", "b"], ["c", "d"]], [2, 2])],
        [tensor(["a", "c"]), tensor(["b", "d"], name="text_pair")],
        [tensor(["b", "d"], [2, 1], name="text_pair"), tensor(["a", "c"])],
    ],
)
def test_pairs(client: Client, service: LengthClassifier, inputs: Any) -> None:
    assert infer(client, {"inputs": inputs}).status_code == 200
    assert texts_of(service) == [("a", "b"), ("c", "d")]


def test_base64_is_read_where_the_content_type_says_so(
    client: Client, service: LengthClassifier
) -> None:
    encoded = b64encode("好".encode())
    for kind, sent in (("base64", encoded.decode()), ("str", "好"), (None, "好")):
        one = tensor([sent], parameters={"content_type": kind})
        assert infer(client, {"inputs": [one]}).status_code == 200
    raw = packed(encoded)
    value = binary([1], len(raw), content_type="base64")
    assert infer_binary(client, value, raw).status_code == 200
    assert texts_of(service) == [("好", None)] * 4


def test_parameters_are_heeded(client: Client, service: LengthClassifier) -> None:
    parameters = {"raw_scores": True, "truncation": False, "timeout": 1_500_000, "priority": 2}
    value = {"inputs": [tensor(["a"])], "parameters": {**parameters, "mine": {"a": 1}}}
    assert infer(client, value).status_code == 200
    assert infer(client, {"inputs": [tensor(["a"])]}).status_code == 200
    plain = Options(top_k=1_000_000, label_ids=True)
    assert [one.options for one in service.seen if isinstance(one, TextInput)] == [
        Options(1_000_000, True, None, False, True),
        plain,
    ]


def test_outputs_are_those_that_are_asked_for(client: Client) -> None:
    value = {"inputs": [tensor(["a"])], "outputs": [{"name": "score"}, {"name": "label"}]}
    answer = infer(client, value).json()
    assert [one["name"] for one in answer["outputs"]] == ["score", "label"]
    everything = infer(client, {"inputs": [tensor(["a"])], "outputs": []}).json()
    assert len(everything["outputs"]) == 3


def test_a_tensor_can_be_binary(client: Client, service: LengthClassifier) -> None:
    raw = packed("好".encode(), b"b")
    assert infer_binary(client, binary([2, 1], len(raw)), raw).status_code == 200
    first, second = packed(b"a"), packed(b"pair")
    value = {
        "inputs": [
            binary([1], len(first))["inputs"][0],
            binary([1], len(second))["inputs"][0] | {"name": "text_pair"},
        ]
    }
    assert infer_binary(client, value, first + second).status_code == 200
    assert texts_of(service) == [("好", None), ("b", None), ("a", "pair")]


def test_the_answer_can_be_binary(client: Client) -> None:
    value = {"inputs": [tensor(["good", LONG])], "parameters": {"binary_data_output": True}}
    answer = infer(client, value)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "no-store"
    end = int(answer.headers[HEADER])
    told, raw = json.loads(answer.content[:end]), answer.content[end:]
    sizes = [one["parameters"]["binary_data_size"] for one in told["outputs"]]
    assert sizes == [17, 8, 16]
    assert not any("data" in one for one in told["outputs"])
    assert raw == packed(b"short", b"long") + struct.pack("<6f", 1, 1, 0, 1, 1, 0)
    assert told["outputs"][2]["parameters"]["labels"] == ["long", "short"]


def test_each_output_decides_for_itself(client: Client) -> None:
    outputs = [
        {"name": "label", "parameters": {"binary_data": False}},
        {"name": "score", "parameters": {"binary_data": True}},
        {"name": "scores"},
    ]
    answer = infer(client, {"inputs": [tensor(["a"])], "outputs": outputs})
    end = int(answer.headers[HEADER])
    label, score, scores = json.loads(answer.content[:end])["outputs"]
    assert (label["data"], scores["data"]) == (["short"], [0.0, 1.0])
    assert score["parameters"] == {"binary_data_size": 4}
    assert answer.content[end:] == struct.pack("<f", 1)


@pytest.mark.parametrize("length", ["-1", "0", "x", "1e2", "99999", "9" * 400, "+5", "1.0", " "])
def test_a_length_of_the_json_that_cannot_be_is_refused(client: Client, length: str) -> None:
    raw = packed(b"a")
    assert "1 to" in error_of(infer_binary(client, binary([1], len(raw)), raw, length), 400)


@pytest.mark.parametrize("length", ["1", "5"])
def test_a_length_that_cuts_the_json_is_refused(client: Client, length: str) -> None:
    raw = packed(b"a")
    message = error_of(infer_binary(client, binary([1], len(raw)), raw, length), 400)
    assert "not valid JSON" in message


@pytest.mark.parametrize(
    ("value", "raw", "says"),
    [
        (binary([1], 6), packed(b"a"), "more than the 5 bytes"),
        (binary([1], 10**30), packed(b"a"), "binary_data_size"),
        (binary([1], -1), packed(b"a"), ">= 0"),
        (binary([1], True), packed(b"a"), "int"),
        (binary([1], 4), packed(b"a"), "ends within element 0 of 1"),
        (binary([1], 5), packed(b"a") + b"x", "1 bytes behind the JSON"),
        (binary([1], 0), b"", "ends within element 0"),
        (binary([2], 5), packed(b"a"), "ends within element 1 of 2"),
        (binary([1], 10), packed(b"a", b"b"), "goes on behind its 1"),
        (binary([1], 3), b"\1\0\0", "ends within"),
        (binary([1], 5), b"\xff\xff\xff\xffa", "ends within"),
        (binary([1], 5), packed(b"\xff"), "not valid Unicode"),
        (binary([1], 4), packed(b""), "empty"),
        (binary([5], 25), packed(*[b"a"] * 5), "limit"),
        (binary([10**40], 5), packed(b"a"), "limit"),
        ({"inputs": [tensor(["a"])]}, b"x", "1 bytes behind the JSON"),
        (
            {"inputs": [tensor(["a"], parameters={"binary_data_size": 5})]},
            packed(b"a"),
            "Send one of them",
        ),
    ],
)
def test_binary_data_that_lies_is_refused(
    client: Client, value: Any, raw: bytes, says: str
) -> None:
    assert says in error_of(infer_binary(client, value, raw), 400)


def test_binary_data_without_the_header_is_refused(client: Client) -> None:
    raw = packed(b"a")
    content = json.dumps(binary([1], len(raw))).encode()
    assert "not valid" in error_of(infer(client, content + raw), 400)
    assert "more than the 0 bytes" in error_of(infer(client, content), 400)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid UTF-8"),
        (b'{"inputs": NaN}', "NaN"),
        ({}, "inputs"),
        ([], "object"),
        ({"inputs": []}, "0 tensors"),
        ({"inputs": [tensor(["a"])] * 3}, "3 tensors"),
        ({"inputs": [tensor(["a"])] * 2}, "text and text_pair"),
        ({"inputs": [tensor(["a"]), tensor(["b"], name="x")]}, "text and text_pair"),
        ({"inputs": [tensor(["a"]), tensor(["b", "c"], name="text_pair")]}, "same shape"),
        ({"inputs": [tensor(["a", "b"], [1, 2]), tensor(["c"], name="text_pair")]}, "same shape"),
        ({"inputs": [tensor(["a"], name=...)]}, "name"),
        ({"inputs": [tensor(["a"], datatype="FP32")]}, "must be BYTES"),
        ({"inputs": [tensor(["a"], datatype=...)]}, "datatype"),
        ({"inputs": [tensor(["a"], datatype=7)]}, "str"),
        ({"inputs": [tensor(..., [1])]}, "`data` is missing"),
        ({"inputs": [tensor("a")]}, "array"),
        ({"inputs": [tensor(["a", 7])]}, "inputs[0].data[1] must be a string"),
        ({"inputs": [tensor(["a", None])]}, "inputs[0].data[1] must be a string"),
        ({"inputs": [tensor([[["a"]]])]}, "must be a string"),
        ({"inputs": [tensor(["a"], [2])]}, "of 1 elements"),
        ({"inputs": [tensor(["a"], [1, 2])]}, "of 1 elements"),
        ({"inputs": [tensor(["a"], [1, 3])]}, "shape"),
        ({"inputs": [tensor(["a"], [1, 1, 1])]}, "shape"),
        ({"inputs": [tensor(["a"], [-1])]}, "shape"),
        ({"inputs": [tensor(["a"], [1, -1])]}, "shape"),
        ({"inputs": [tensor(["a"], [1.5])]}, "int"),
        ({"inputs": [tensor(["a"], [True])]}, "int"),
        ({"inputs": [tensor(["a"], ["1"])]}, "int"),
        ({"inputs": [tensor([], [0])]}, "at least 1"),
        ({"inputs": [tensor(["a"] * 5)]}, "limit"),
        ({"inputs": [tensor(["a", " "])]}, "data[1]: data is empty"),
        ({"inputs": [tensor(["a", "b", "c", ""], [2, 2])]}, "data[1]: data_pair is empty"),
        (
            rb'{"inputs": [{"name":"t","shape":[1],"datatype":"BYTES","data":["\ud800"]}]}',
            "Unicode",
        ),
        (
            rb'{"id": "\ud800", '
            rb'"inputs": [{"name":"t","shape":[1],"datatype":"BYTES","data":["a"]}]}',
            "Unicode",
        ),
        ({"inputs": [tensor(["a"], parameters={"content_type": "secret"})]}, "Not one of"),
        ({"inputs": [tensor(["a"], parameters={"content_type": "base64"})]}, "base64"),
        ({"inputs": [tensor(["é"], parameters={"content_type": "base64"})]}, "base64"),
        ({"inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]}, "outputs[0] is logits"),
        ({"inputs": [tensor(["a"])], "outputs": [{"name": "a secret"}]}, "is not known"),
        ({"inputs": [tensor(["a"])], "outputs": [{}]}, "name"),
        (
            {
                "inputs": [tensor(["a"])],
                "outputs": [{"name": "label", "parameters": {"classification": 2}}],
            },
            "classification",
        ),
        ({"inputs": [tensor(["a"])], "parameters": {"top_k": 1}}, "top_k"),
        ({"inputs": [tensor(["a"])], "parameters": {"threshold": 0.1}}, "threshold"),
        ({"inputs": [tensor(["a"])], "parameters": {"raw_scores": "secret"}}, "bool"),
        ({"inputs": [tensor(["a"])], "parameters": {"timeout": -1}}, ">= 0"),
        ({"inputs": [tensor(["a"])], "parameters": {"timeout": 10**17}}, "<="),
        ({"inputs": [tensor(["a"])], "id": 7}, "str"),
        (b'{"inputs": ' + b"[" * 1_000, 'nested too deeply. Send {"inputs"'),
    ],
)
def test_what_is_wrong_with_a_request_is_a_400(client: Client, value: Any, says: str) -> None:
    message = error_of(infer(client, value), 400)
    assert says in message
    assert "secret" not in message


def test_the_content_types_it_takes_are_its_own(client: Client) -> None:
    value = {"inputs": [tensor(["a"])]}
    for kind in ("application/octet-stream", "application/json; charset=utf-8"):
        assert infer(client, value, headers={"content-type": kind}).status_code == 200
    message = error_of(infer(client, value, headers={"content-type": "text/xml"}), 400)
    assert "application/octet-stream" in message
    ours = client.send(b'{"text": "a"}', "application/octet-stream")
    assert ours.status_code == 415
    assert "octet-stream" not in ours.text
    packed_up = infer(client, value, headers={"content-encoding": "gzip"})
    assert "Compressed" in error_of(packed_up, 400)


def test_one_bad_text_fails_the_request_and_is_named(
    client: Client, service: LengthClassifier
) -> None:
    service.bad_texts = {"bad": PredictionFailed("The model failed.")}
    message = error_of(infer(client, {"inputs": [tensor(["a", "bad"])]}), 500)
    assert message == "data[1]: The model failed."
    service.failure = Overloaded("Full.", 3.2)
    answer = infer(client, {"inputs": [tensor(["a"])]})
    assert (error_of(answer, 429), answer.headers["retry-after"]) == ("Full.", "4")


def test_the_pages(client: Client) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/demo", "/v2/models/demo/versions/1"):
        about = client.get(path).json()
        assert (about["name"], about["versions"]) == ("demo", ["1"])
        assert [one["name"] for one in about["inputs"]] == ["text"]
        assert [one["shape"] for one in about["outputs"]] == [[-1], [-1], [-1, 2]]
        assert client.get(f"{path}/ready").json() == {"name": "demo", "ready": True}


def test_what_is_not_ready_says_so(client: Client, service: LengthClassifier) -> None:
    service.is_ready = False
    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/demo/ready"):
        answer = client.get(path)
        assert "loading" in error_of(answer, 503)
        assert answer.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v2/models/other/infer", "Model with name other does not exist."),
        ("/v2/models/other", "Model with name other does not exist."),
        ("/v2/models/a%20text/ready", "Model with this name does not exist."),
        (f"/v2/models/{'n' * 129}/infer", "Model with this name does not exist."),
        ("/v2/models/demo/versions/2/infer", "no such version"),
        ("/v2/models/demo/versions/x", "no such version"),
        ("/v2/models/demo/versions", "no such version"),
        ("/v2/models/demo/stats", "nothing at this path"),
        ("/v2/repository/index", "nothing at this path"),
        ("/v2/", "nothing at this path"),
    ],
)
def test_what_is_not_there_is_a_404_in_its_words(client: Client, path: str, says: str) -> None:
    assert says in error_of(client.get(path), 404)
    assert says in error_of(infer(client, {"inputs": [tensor(["a"])]}, path), 404)


def test_a_wrong_method_is_told_the_right_one(client: Client) -> None:
    answer = client.get(INFER)
    assert "POST" in error_of(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_probes_need_no_key_and_the_rest_does(service: LengthClassifier, tmp_path: Any) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"))
    client = Client(create_app(service, LIMITS, access))
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    for path in ("/v2", "/v2/models/demo", "/v2/models/other", "/v2/health/other"):
        assert "key" in error_of(client.get(path), 401)
    assert "key" in error_of(infer(client, b""), 401)


BASE = json.dumps({**binary([2], 12), "parameters": {"binary_data_output": True}}).encode()


@given(
    head=st.one_of(st.just(BASE), st.binary(max_size=40)),
    raw=st.one_of(st.just(packed(b"ab", b"cd")), st.binary(max_size=20)),
    length=st.one_of(st.just(str(len(BASE))), st.integers(-3, 300).map(str), st.just("")),
)
@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_bytes_are_a_500(head: bytes, raw: bytes, length: str) -> None:
    client = Client(create_app(LengthClassifier(), LIMITS))
    answer = client.request("POST", INFER, content=head + raw, headers={HEADER: length})
    assert answer.status_code in (200, 400)
