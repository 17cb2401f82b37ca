"""The Open Inference Protocol over gRPC, by Serve's own server: the same as over HTTP."""

from __future__ import annotations

import asyncio
import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_door import Asking, served
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from stand_in import LIMITS, Client, LengthClassifier

from deployments.access.callers import Callers
from deployments.access.keys import hash_of, new_token
from deployments.grpc.edge import GrpcEdge
from deployments.grpc.generated import open_inference_pb2 as oip
from deployments.http.app import create_app
from deployments.pipeline.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    PredictionFailed,
    ServiceError,
)
from deployments.pipeline.types import Answer, TextInput
from deployments.privacy.audit import AuditLog
from deployments.settings import AccessSettings, AuditSettings, Settings

ROOT = Path(__file__).parents[3]
PROTO = "deployments/grpc/generated/open_inference.proto"
LONG = "long enough to be long"
CHINESE = "质量很好，会再来，真的很好"
SETTINGS = Settings(limits=LIMITS)


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in elements)


def infer(*texts: str | bytes, name: str = "text", **more: Any) -> oip.ModelInferRequest:
    """A request with one tensor of texts; `more` are fields of the request."""
    contents = {"bytes_contents": [t.encode() if isinstance(t, str) else t for t in texts]}
    tensor = {"name": name, "datatype": "BYTES", "shape": [len(texts)], "contents": contents}
    return oip.ModelInferRequest(**{"model_name": "demo", "inputs": [tensor], **more})


def raw(shape: list[int], *contents: bytes, **more: Any) -> oip.ModelInferRequest:
    names = ("text", "text_pair")
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": shape}
        for name, _ in zip(names, contents, strict=False)
    ]
    fields = {"model_name": "demo", "inputs": inputs, "raw_input_contents": contents}
    return oip.ModelInferRequest(**{**fields, **more})


def flag(value: bool) -> dict[str, Any]:
    return {"bool_param": value}


@pytest.fixture
def ask(service: LengthClassifier) -> Iterator[Asking]:
    with served(GrpcEdge(service, SETTINGS)) as asking:
        yield asking


def refusal(ask: Asking, request: Any, code: str, name: str = "ModelInfer", **how: Any) -> str:
    """The message of an error with this code."""
    with pytest.raises(grpc.RpcError) as caught:
        ask(name, request, **how)
    assert caught.value.code().name == code, caught.value.details()
    message: str = caught.value.details()
    return message


def texts_of(service: LengthClassifier) -> list[tuple[str, str | None]]:
    return [(one.text, one.text_pair) for one in service.seen if isinstance(one, TextInput)]


def numbers(answer: oip.ModelInferResponse) -> dict[str, list[Any]]:
    """Output → its elements, be they typed or raw."""
    found: dict[str, list[Any]] = {}
    for i, tensor in enumerate(answer.outputs):
        if answer.raw_output_contents:
            assert not tensor.HasField("contents")
            content = answer.raw_output_contents[i]
            if tensor.datatype == "FP32":
                found[tensor.name] = list(struct.unpack(f"<{len(content) // 4}f", content))
                continue
            strings = found.setdefault(tensor.name, [])
            while content:
                end = 4 + int.from_bytes(content[:4], "little")
                strings.append(content[4:end].decode())
                content = content[end:]
        elif tensor.datatype == "FP32":
            found[tensor.name] = list(tensor.contents.fp32_contents)
        else:
            found[tensor.name] = [one.decode() for one in tensor.contents.bytes_contents]
    return found


def test_the_generated_messages_are_those_of_the_proto(tmp_path: Path) -> None:
    made = tmp_path / "made"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--descriptor_set_out={made}"]
    subprocess.run([*command, PROTO], cwd=ROOT, check=True)
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    ours = descriptor_pb2.FileDescriptorProto.FromString(oip.DESCRIPTOR.serialized_pb)
    assert _facts(file) == _facts(ours)


def test_messages_cross_processes_as_serves_python_proxy_has_them_do() -> None:
    assert pickle.loads(pickle.dumps(infer("a"))) == infer("a")  # noqa: S301


def test_names_and_numbers_are_those_of_tritons_client() -> None:
    """In a process of its own: one has room for one module with these messages."""
    code = (
        "import sys\n"
        "from google.protobuf import descriptor_pb2\n"
        "from tritonclient.grpc import service_pb2\n"
        "sys.stdout.buffer.write(service_pb2.DESCRIPTOR.serialized_pb)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    theirs = descriptor_pb2.FileDescriptorProto.FromString(made)
    ours = descriptor_pb2.FileDescriptorProto.FromString(oip.DESCRIPTOR.serialized_pb)
    fields, known = _facts(ours), _facts(theirs)
    assert len(fields) > 60
    assert {name: known.get(name) for name in fields} == fields


def _facts(file: descriptor_pb2.FileDescriptorProto) -> dict[str, tuple[Any, ...]]:
    facts: dict[str, tuple[Any, ...]] = {}

    def look(message: Any, path: str) -> None:
        for field in message.field:
            told = (field.number, field.type, field.label, field.type_name)
            facts[f"{path}{message.name}.{field.name}"] = told
        for nested in message.nested_type:
            look(nested, f"{path}{message.name}.")

    for message in file.message_type:
        look(message, f"{file.package}.")
    for service in file.service:
        for method in service.method:
            facts[f"{service.name}/{method.name}"] = (method.input_type, method.output_type)
    return facts


def test_it_says_what_serves(ask: Asking, service: LengthClassifier) -> None:
    assert ask("ServerLive", oip.ServerLiveRequest()).live
    assert ask("ServerMetadata", oip.ServerMetadataRequest()).name == "rayclassify"
    about = ask("ModelMetadata", oip.ModelMetadataRequest(name="demo", version="1"))
    assert [(one.name, one.datatype, list(one.shape)) for one in about.outputs] == [
        ("label", "BYTES", [-1]),
        ("score", "FP32", [-1]),
        ("scores", "FP32", [-1, 2]),
    ]
    for ready in (True, False):
        service.is_ready = ready
        assert ask("ServerReady", oip.ServerReadyRequest()).ready is ready
        assert ask("ModelReady", oip.ModelReadyRequest(name="demo")).ready is ready


def test_health_is_grpcs_own(ask: Asking, service: LengthClassifier) -> None:
    stub = health_pb2_grpc.HealthStub(ask.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "inference.GRPCInferenceService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
    service.is_ready = False
    answer = stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Watch(health_pb2.HealthCheckRequest()))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_tells_our_services(ask: Asking) -> None:
    told = ProtoReflectionDescriptorDatabase(ask.channel)
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(told.get_services())
    assert told.FindFileContainingSymbol("inference.ModelInferRequest").name


@pytest.mark.parametrize(
    "parameters", [{}, {"raw_scores": True}, {"truncation": False, "timeout": 5_000_000}]
)
@pytest.mark.parametrize("texts", [["good"], [CHINESE, LONG], ["good", CHINESE, "ok"]])
def test_the_same_question_has_the_same_numbers_over_http(
    service: LengthClassifier, ask: Asking, texts: list[str], parameters: dict[str, Any]
) -> None:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    body = {"id": "7", "inputs": [tensor], "parameters": parameters}
    client = Client(create_app(service, LIMITS))
    over_http = client.request(
        "POST", "/v2/models/demo/infer", content=json.dumps(body).encode()
    ).json()
    wanted = {one["name"]: one["data"] for one in over_http["outputs"]}
    typed = {
        name: flag(value) if isinstance(value, bool) else {"int64_param": value}
        for name, value in parameters.items()
    }
    elements = packed(*(text.encode() for text in texts))
    for request in (
        infer(*texts, id="7", parameters=typed),
        raw([len(texts)], elements, id="7", parameters=typed),
        raw([len(texts), 1], elements, id="7", parameters=typed),
    ):
        answer = ask("ModelInfer", request)
        assert numbers(answer) == wanted
        assert bool(answer.raw_output_contents) == bool(request.raw_input_contents)
        assert (answer.id, answer.model_name, answer.model_version) == ("7", "demo", "1")
        shapes = {one.name: list(one.shape) for one in answer.outputs}
        assert shapes == {one["name"]: one["shape"] for one in over_http["outputs"]}
        labels = answer.outputs[2].parameters["labels"].string_param
        assert json.loads(labels) == over_http["outputs"][2]["parameters"]["labels"]
    asked = [one.options for one in service.seen if isinstance(one, TextInput)]
    assert len(set(asked)) == 1


def test_pairs_come_in_one_tensor_or_in_two(ask: Asking, service: LengthClassifier) -> None:
    two = infer("a", "c")
    two.inputs.append(infer("b", "d", name="text_pair").inputs[0])
    one = infer("a", "b", "c", "d")
    del one.inputs[0].shape[:]
    one.inputs[0].shape.extend([2, 2])
    four = packed(b"a", b"b", b"c", b"d")
    for request in (two, one, raw([2, 2], four), raw([2], packed(b"a", b"c"), packed(b"b", b"d"))):
        service.seen.clear()
        ask("ModelInfer", request)
        assert texts_of(service) == [("a", "b"), ("c", "d")]


def test_only_the_outputs_that_are_wanted_are_told(ask: Asking) -> None:
    answer = ask("ModelInfer", infer("a", outputs=[{"name": "scores"}, {"name": "label"}]))
    assert list(numbers(answer)) == ["scores", "label"]


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (infer(" "), "INVALID_ARGUMENT", "data is empty or only spaces"),
        (infer("a", ""), "INVALID_ARGUMENT", "data[1]: data is empty"),
        (infer(), "INVALID_ARGUMENT", "empty list"),
        (infer(*"abcde"), "INVALID_ARGUMENT", "over 4 texts, the limit"),
        (infer("x" * 101), "INVALID_ARGUMENT", "101 characters; the limit is 100"),
        (infer("x" * 3_000), "INVALID_ARGUMENT", "bytes; the limit is 2000"),
        (infer(b"\xff"), "INVALID_ARGUMENT", "not valid Unicode"),
        (infer("a", model_name="other"), "NOT_FOUND", "name other does not exist"),
        (infer("a", model_name=""), "NOT_FOUND", "this name does not exist"),
        (infer("a", model_name="a secret text"), "NOT_FOUND", "this name does not exist"),
        (infer("a", model_version="2"), "NOT_FOUND", "no such version. It has 1"),
        (infer("a", inputs=[]), "INVALID_ARGUMENT", "0 tensors"),
        (
            infer("a", inputs=[{"name": "text", "datatype": "FP32", "shape": [1]}]),
            "INVALID_ARGUMENT",
            "inputs[0] has no contents",
        ),
        (
            infer("a", raw_input_contents=[packed(b"a"), b""]),
            "INVALID_ARGUMENT",
            "2 elements and `inputs` 1 tensors",
        ),
        (infer("a", raw_input_contents=[packed(b"a")]), "INVALID_ARGUMENT", "Send one of them"),
        (raw([1], b"\x09\0\0\0a"), "INVALID_ARGUMENT", "ends within element 0"),
        (raw([-1], packed(b"a")), "INVALID_ARGUMENT", "`shape` must be"),
        (raw([10**12], b""), "INVALID_ARGUMENT", "over 4 texts, the limit"),
        (infer("a", outputs=[{"name": "logits"}]), "INVALID_ARGUMENT", "outputs[0] is logits"),
        (
            infer(
                "a",
                outputs=[{"name": "label", "parameters": {"classification": {"int64_param": 1}}}],
            ),
            "INVALID_ARGUMENT",
            "`classification` is not supported",
        ),
        (infer("a", parameters={"top_k": {"int64_param": 1}}), "INVALID_ARGUMENT", "`top_k`"),
        (
            infer("a", parameters={"timeout": {"string_param": "a secret"}}),
            "INVALID_ARGUMENT",
            "at $.timeout",
        ),
    ],
)
def test_what_is_wrong_is_said_without_the_text(
    ask: Asking, request_: Any, code: str, says: str
) -> None:
    message = refusal(ask, request_, code)
    assert says in message
    assert "secret" not in message
    assert "x" * 10 not in message


@pytest.mark.parametrize(
    ("failure", "code", "retry_after"),
    [
        (Overloaded("Full.", 2.4), "RESOURCE_EXHAUSTED", "3"),
        (NotReady("Loading.", 1.0), "UNAVAILABLE", "1"),
        (DeadlineExceeded("Too late."), "DEADLINE_EXCEEDED", None),
        (PredictionFailed("The model failed."), "INTERNAL", None),
        (ValueError("a secret text"), "INTERNAL", None),
    ],
)
def test_what_went_wrong_has_its_status(
    ask: Asking,
    service: LengthClassifier,
    failure: Exception,
    code: str,
    retry_after: str | None,
) -> None:
    service.failure = failure
    message = refusal(ask, infer("a"), code)
    expected = failure if isinstance(failure, ServiceError) else ServiceError()
    assert message == str(expected)
    assert ask.trailing.get("retry-after") == retry_after
    assert ask.trailing["request_id"] == "of-serve"


class Slow(LengthClassifier):
    """Waits until it is cancelled, and knows how long it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[float | None] = []
        self.cancelled = False

    async def classify_inputs(
        self, inputs: list[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        self.given.append(timeout_s)
        if len(self.given) == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return await super().classify_inputs(inputs, timeout_s)


def test_the_callers_deadline_bounds_ours() -> None:
    slow = Slow()
    microseconds = {"timeout": {"int64_param": 2_000_000}}
    with served(GrpcEdge(slow, SETTINGS)) as ask:
        refusal(ask, infer("a"), "DEADLINE_EXCEEDED", timeout_s=0.5)
        ask("ModelInfer", infer("a"), timeout_s=20)
        ask("ModelInfer", infer("a", parameters=microseconds), timeout_s=20)
        ask("ModelInfer", infer("a"), timeout_s=20, x_timeout_ms="3000")
        ask("ModelInfer", infer("a", parameters={"timeout": {"int64_param": 60_000_000}}), 20)
    first, second, *bounded, last = slow.given
    assert slow.cancelled
    assert first is not None
    # gRPC rounds a time up before it sends it.
    assert 0 < first < 0.6
    assert second is not None
    assert 0.6 < second < 21
    assert bounded == [2.0, 3.0]
    assert last is not None
    assert last < 21


KEYS: dict[str, dict[str, Any]] = {
    "shop": {},
    "reader": {"scopes": ["explain"]},
    "slow": {"texts_per_day": 3},
}
TOKENS = {name: new_token() for name in KEYS}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.json"
    entries = [{"id": name, "sha256": hash_of(TOKENS[name]), **KEYS[name]} for name in KEYS]
    file.write_text(json.dumps({"keys": entries}), encoding="utf-8")
    return file


def test_keys_hold_as_over_http(service: LengthClassifier, keys_file: Path, tmp_path: Path) -> None:
    access = AccessSettings(keys_file=str(keys_file))
    secret = tmp_path / "secret"
    secret.write_text("00" * 32, encoding="ascii")
    audit = AuditLog(AuditSettings(directory=str(tmp_path / "audit"), secret_file=str(secret)))
    settings = SETTINGS.model_copy(update={"access": access})
    callers = Callers(access)
    client = Client(create_app(service, LIMITS, access, callers=callers))
    with served(GrpcEdge(service, settings, callers, audit)) as ask:
        assert ask("ServerLive", oip.ServerLiveRequest()).live
        assert ask("ServerReady", oip.ServerReadyRequest()).ready
        about = oip.ServerMetadataRequest()
        assert "needs a key" in refusal(ask, about, "UNAUTHENTICATED", "ServerMetadata")
        refusal(ask, infer("a"), "UNAUTHENTICATED")
        refusal(ask, infer("a"), "UNAUTHENTICATED", x_api_key="wrong")
        refusal(ask, infer("a"), "PERMISSION_DENIED", x_api_key=TOKENS["reader"])
        ask("ServerMetadata", about, x_api_key=TOKENS["reader"])
        ask("ModelInfer", infer("a"), authorization=f"Bearer {TOKENS['shop']}", x_request_id="mine")
        # A quota is one, whichever way its texts come.
        assert (
            client.classify({"text": ["a", "b"]}, {"x-api-key": TOKENS["slow"]}).status_code == 200
        )
        ask("ModelInfer", infer("a"), x_api_key=TOKENS["slow"])
        refusal(ask, infer("a"), "RESOURCE_EXHAUSTED", x_api_key=TOKENS["slow"])
        assert int(ask.trailing["retry-after"]) > 0
    audit.close()
    lines = map(json.loads, audit.path.read_text(encoding="utf-8").splitlines())
    decided = [(one["request_id"], one["key_id"]) for one in lines]
    assert decided == [("mine", "key:shop"), ("of-serve", "key:slow")]


def test_priority_and_client_are_read_as_over_http(service: LengthClassifier) -> None:
    limits = LIMITS.model_copy(update={"client_header": "x-who"})
    with served(GrpcEdge(service, Settings(limits=limits))) as ask:
        ask("ModelInfer", infer("a"), x_priority="bulk", x_who="somebody")
        refusal(ask, infer("a"), "INVALID_ARGUMENT", x_priority="now")
    (seen,) = [one for one in service.seen if isinstance(one, TextInput)]
    assert seen.flow.client == "somebody"
    assert seen.flow.priority == "bulk"
