"""A real HAProxy, as Serve's own code and our YAML set it up, in front of Serve's gRPC server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_door import Asking, serving
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from stand_in import LengthClassifier

from deployments.config.check import load_config
from deployments.config.keys import SERVICER
from deployments.grpc.edge import GrpcEdge
from deployments.grpc.generated import open_inference_pb2 as oip
from deployments.launch.ports import next_port
from deployments.pipeline.errors import Overloaded
from deployments.settings import Settings

ROOT = Path(__file__).parents[2]
ENV = load_config(ROOT / "serve_config.yaml")["controller_options"]["runtime_env"]["env_vars"]
QUESTION = oip.ModelInferRequest(
    model_name="demo",
    inputs=[
        {
            "name": "text",
            "datatype": "BYTES",
            "shape": [2],
            "contents": {"bytes_contents": ["质量很好".encode(), b"long enough to be long"]},
        }
    ],
)


@pytest.fixture(scope="module")
def service() -> LengthClassifier:
    return LengthClassifier()


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory, service: LengthClassifier) -> Iterator[Asking]:
    """Somebody who asks HAProxy."""
    haproxy = pytest.importorskip("ray.serve._private.haproxy")
    from ray.serve._private.common import RequestProtocol
    from ray.serve.config import HTTPOptions, gRPCOptions

    try:
        binary = haproxy.get_haproxy_binary()
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no HAProxy that runs here")
    files = tmp_path_factory.mktemp("haproxy")
    door = next_port()
    config = haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=next_port()),
        grpc_options=gRPCOptions(port=door, grpc_servicer_functions=[SERVICER]),
        balance_algorithm=ENV["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"],
        log_target=ENV["RAY_SERVE_HAPROXY_LOG_TARGET"],
        retry_on=ENV["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=int(ENV["RAY_SERVE_HAPROXY_RETRIES"]),
        timeout_client_s=int(ENV["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]),
        stats_port=next_port(),
        metrics_port=next_port(),
        socket_path=str(files / "admin.sock"),
        server_state_base=str(files),
        server_state_file=str(files / "state"),
        metrics_socket_path=str(files / "metrics.sock"),
        enable_hap_optimization=True,
        has_received_routes=True,
        has_received_servers=True,
    )
    with serving(GrpcEdge(service, Settings())) as port:
        replica = haproxy.ServerConfig(name="one", host="127.0.0.1", port=port)
        backend = haproxy.BackendConfig(
            name="classify",
            path_prefix="/",
            app_name="classify",
            protocol=RequestProtocol.GRPC,
            servers=[replica],
        )
        file = str(files / "haproxy.cfg")
        haproxy.HAProxyApi(config, {"classify": backend}, file)._generate_config_file_internal()
        with subprocess.Popen([binary, "-db", "-f", file]) as process:
            try:
                with grpc.insecure_channel(f"127.0.0.1:{door}") as channel:
                    grpc.channel_ready_future(channel).result(20)
                    yield Asking(channel)
            finally:
                process.kill()


def test_a_question_comes_through_with_its_answer(ask: Asking) -> None:
    for metadata in ({}, {"application": "classify"}):
        answer = ask("ModelInfer", QUESTION, x_request_id="7", **metadata)
        assert list(answer.outputs[0].contents.bytes_contents) == [b"short", b"long"]
        assert answer.id == "7"


def test_an_error_comes_through_with_its_metadata(ask: Asking, service: LengthClassifier) -> None:
    service.failure = Overloaded("Full: 8192 texts wait, the limit is 8192. 满了", 2.4)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            ask("ModelInfer", QUESTION)
    finally:
        service.failure = None
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "Full: 8192 texts wait, the limit is 8192. 满了"
    assert ask.trailing["retry-after"] == "3"


def test_health_and_reflection_are_reached(ask: Asking) -> None:
    stub = health_pb2_grpc.HealthStub(ask.channel)
    serving_now = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(health_pb2.HealthCheckRequest()).status == serving_now
    told = ProtoReflectionDescriptorDatabase(ask.channel)
    assert "inference.GRPCInferenceService" in told.get_services()


def test_what_is_not_ours_is_unimplemented(ask: Asking) -> None:
    call = ask.channel.unary_unary("/inference.GRPCInferenceService/ModelStatistics")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
