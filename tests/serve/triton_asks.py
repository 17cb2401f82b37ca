"""What Triton's client is told over gRPC, as JSON; in a process of its own.

One process has room for one module with the protocol's messages, and the tests' has ours.
`python triton_asks.py ADDRESS KEY TEXT...`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

ADDRESS, KEY, *TEXTS = sys.argv[1:]
BEARER = {"authorization": f"Bearer {KEY}"}
PAIR = ["很好", "不好"]
OUTPUTS = ("label", "score", "scores")


def tensor(texts: list[str], shape: list[int] | None = None, name: str = "text") -> Any:
    given = triton.InferInput(name, shape or [len(texts)], "BYTES")
    values = np.array([text.encode() for text in texts], dtype=object)
    return given.set_data_from_numpy(values.reshape(given.shape()))


def main() -> None:
    client = triton.InferenceServerClient(ADDRESS)

    def infer(*inputs: Any, model: str = "demo", headers: Any = BEARER, **more: Any) -> Any:
        answer = client.infer(model, list(inputs), headers=headers, **more)
        found = {name: answer.as_numpy(name).tolist() for name in OUTPUTS}
        found["label"] = [one.decode() for one in found["label"]]
        return {**found, "raw": bool(answer.get_response().raw_output_contents)}

    def typed() -> Any:
        """As clients ask that put no raw contents into a message."""
        request = service_pb2.ModelInferRequest(model_name="demo")
        one = request.inputs.add(name="text", datatype="BYTES", shape=[len(TEXTS)])
        one.contents.bytes_contents.extend(text.encode() for text in TEXTS)
        answer = client._client_stub.ModelInfer(request, metadata=tuple(BEARER.items()))
        label, score, scores = (one.contents for one in answer.outputs)
        return {
            "label": [one.decode() for one in label.bytes_contents],
            "score": list(score.fp32_contents),
            "scores": list(scores.fp32_contents),
            "raw": bool(answer.raw_output_contents),
        }

    def healthy(service: str = "") -> int:
        stub = health_pb2_grpc.HealthStub(client._channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service)).status)

    calls: dict[str, Callable[[], Any]] = {
        "live": client.is_server_live,
        "ready": client.is_server_ready,
        "model ready": lambda: client.is_model_ready("demo", headers=BEARER),
        "server": lambda: client.get_server_metadata(BEARER, as_json=True)["name"],
        "model": lambda: client.get_model_metadata("demo", headers=BEARER, as_json=True)["name"],
        "one text": lambda: infer(tensor(TEXTS[:1])),
        "texts": lambda: infer(tensor(TEXTS, [len(TEXTS), 1])),
        "typed": typed,
        "raw scores": lambda: infer(tensor(TEXTS), parameters={"raw_scores": True}),
        "pairs": lambda: infer(tensor(PAIR, [1, 2])),
        "two tensors": lambda: infer(tensor(PAIR[:1]), tensor(PAIR[1:], name="text_pair")),
        "empty": lambda: infer(tensor([" "])),
        "other model": lambda: infer(tensor(PAIR), model="other"),
        "no key": lambda: infer(tensor(PAIR), headers={}),
        "wrong key": lambda: infer(tensor(PAIR), headers={"x-api-key": "wrong"}),
        "statistics": lambda: client.get_inference_statistics("demo", headers=BEARER),
        "health": healthy,
        "health of the service": lambda: healthy("inference.GRPCInferenceService"),
        "services": lambda: [*ProtoReflectionDescriptorDatabase(client._channel).get_services()],
    }
    told: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            told[name] = call()
        except InferenceServerException as error:
            told[name] = [error.status(), error.message()]
    print(json.dumps(told))


if __name__ == "__main__":
    main()
