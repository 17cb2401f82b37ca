"""gRPC through HAProxy and a real replica: Triton's own client, and gRPC's own services."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from running import Service, read_config

from deployments.access.keys import hash_of, new_token

pytestmark = pytest.mark.slow

ASKS = Path(__file__).with_name("triton_asks.py")
TEXTS = ["质量很好，会再来", "太差了，要退货"]
SERVING = 1


def over_http(service: Service, token: str, **parameters: Any) -> dict[str, list[Any]]:
    """Output → its elements."""
    tensor = {"name": "text", "shape": [len(TEXTS)], "datatype": "BYTES", "data": TEXTS}
    answer = requests.post(
        f"{service.url}/v2/models/demo/infer",
        json={"inputs": [tensor], "parameters": parameters},
        headers={"X-API-Key": token},
        timeout=60,
    )
    return {one["name"]: one["data"] for one in answer.json()["outputs"]}


def test_tritons_client_gets_over_grpc_what_http_answers(service: Service, tmp_path: Path) -> None:
    token = new_token()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"id": "shop", "sha256": hash_of(token)}]}))
    config = read_config()
    args = config["applications"][0]["args"]
    args["access"] |= {"keys_file": str(keys)}
    args["engine"] |= {"name": "torch", "device": "cpu", "dtype": "float32"}
    service.deploy(config)
    asked = subprocess.run(
        [sys.executable, ASKS, f"127.0.0.1:{service.grpc_port}", token, *TEXTS],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    told = json.loads(asked.stdout)
    for name in ("live", "ready", "model ready"):
        assert told[name] is True
    assert (told["server"], told["model"]) == ("rayclassify", "demo")

    same, raw = over_http(service, token), over_http(service, token, raw_scores=True)
    for name, wanted in (("texts", same), ("typed", same), ("raw scores", raw)):
        answer = told[name]
        assert answer["label"] == wanted["label"], name
        # FP32 holds 7 digits of what JSON shows.
        assert answer["score"] == pytest.approx(wanted["score"], abs=1e-5)
        assert flat(answer["scores"]) == pytest.approx(wanted["scores"], abs=1e-5)
        assert answer["raw"] is (name != "typed")
    assert told["one text"]["label"] == same["label"][:1]
    assert told["pairs"]["label"] == told["two tensors"]["label"]

    assert told["empty"] == [
        "StatusCode.INVALID_ARGUMENT",
        "data is empty or only spaces. Send some words.",
    ]
    assert told["other model"] == [
        "StatusCode.NOT_FOUND",
        "Model with name other does not exist.",
    ]
    assert told["no key"][0] == told["wrong key"][0] == "StatusCode.UNAUTHENTICATED"
    assert told["statistics"][0] == "StatusCode.UNIMPLEMENTED"
    assert told["health"] == told["health of the service"] == SERVING
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(told["services"])
    assert service.logged("Tokenizer", "Traceback") is None


def flat(rows: list[Any]) -> list[float]:
    return [x for row in rows for x in (row if isinstance(row, list) else [row])]
