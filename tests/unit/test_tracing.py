"""One trace from HTTP through the three deployments, as an OTLP receiver gets it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import without_ray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deployments.classifier import Classifier
from deployments.postprocessor import Postprocessor
from deployments.settings import Settings
from deployments.tokenizer import Tokenizer

pytestmark = pytest.mark.anyio

TEXT = "张三的地址在这里"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Receiver:
    """What arrived: spans with the deployment that sent each."""

    url: str
    spans: list[tuple[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def named(self, name: str) -> list[Any]:
        return [span for _, span in self.spans if span.name == name]

    def children(self, span: Any) -> set[str]:
        return {
            f"{of}: {child.name}"
            for of, child in self.spans
            if child.parent_span_id == span.span_id
        }

    def linked(self, span: Any) -> list[str]:
        ids = {link.span_id for link in span.links}
        return [other.name for _, other in self.spans if other.span_id in ids]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.bodies.append(body)
            for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {a.key: a.value.string_value for a in one.resource.attributes}
                assert about["service.name"] == "rayclassify"
                for scope in one.scope_spans:
                    told.spans += [(about["rayclassify.deployment"], span) for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = Receiver(f"http://127.0.0.1:{server.server_address[1]}/v1/traces")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


class Service:
    """All three deployments' classes in this process, and what ends their tracers."""

    def __init__(self, endpoint: str, share: float) -> None:
        settings = Settings.model_validate(
            {
                "engine": {"name": "none", "num_threads": 1},
                "limits": {"max_text_chars": 50},
                "tracing": {"endpoint": endpoint, "share": share},
            }
        )
        self.classifier = Classifier(settings)
        self.postprocessor = Postprocessor(settings.tracing)
        self.tokenizer = Tokenizer(
            settings,
            without_ray.handle(predict=self.classifier.predict, parts=self.classifier.parts),
            without_ray.handle(postprocess=self.postprocessor.postprocess),
        )
        self.app = self.tokenizer.__serve_build_asgi_app__()

    async def send_all(self) -> None:
        """In a thread, as the receiver runs in this process too."""
        for tracer in (
            self.tokenizer._tracer, self.classifier._tracer, self.postprocessor._tracer
        ):  # fmt: skip
            assert tracer is not None
            await asyncio.to_thread(tracer.close)


@asynccontextmanager
async def asking(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    await service.tokenizer._chain.loading
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client


async def test_a_request_is_one_tree_from_http_to_the_forward_pass(receiver: Receiver) -> None:
    service = Service(receiver.url, share=0.0)  # the caller's mark decides
    async with asking(service) as client:
        answer = await client.post(
            "/classify",
            json={"text": TEXT},
            headers={"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "id-1",
                     "tracestate": f"vendor={TEXT.encode().hex()}"},
        )  # fmt: skip
        assert answer.status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert "traceparent" not in (await client.get("/ready")).headers
    await service.send_all()

    (request,) = receiver.named("POST /classify")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    about = {a.key: a.value for a in request.attributes}
    assert about["rayclassify.request_id"].string_value == "id-1"
    assert about["http.response.status_code"].int_value == 200
    (classify,), (batch,), (predict,) = map(receiver.named, ("classify", "micro-batch", "predict"))
    (call,), (forward,) = map(receiver.named, ("classifier", "forward pass"))
    assert receiver.children(request) == {"Tokenizer: classify"}
    assert receiver.children(classify) == {"Tokenizer: micro-batch"}
    assert receiver.children(batch) == (
        {"Tokenizer: tokenize", "Tokenizer: predict", "Postprocessor: postprocess"}
    )
    assert receiver.children(predict) == {"Classifier: classifier"}
    assert receiver.children(call) == {"Classifier: forward pass"}
    assert {span.trace_id.hex() for _, span in receiver.spans} == {TRACE}
    assert receiver.linked(classify) == ["micro-batch"]
    assert receiver.linked(call) == ["forward pass"]
    assert not forward.status.message


async def test_requests_that_share_a_batch_are_linked_to_it(receiver: Receiver) -> None:
    service = Service(receiver.url, share=1.0)
    async with asking(service) as client:
        posts = [client.post("/classify", json={"text": [TEXT, TEXT]}) for _ in range(8)]
        assert {answer.status_code for answer in await asyncio.gather(*posts)} == {200}
    await service.send_all()
    asked = receiver.named("classify")
    assert len({span.trace_id for span in asked}) == 8
    batches = receiver.named("micro-batch")
    assert len(batches) < 8
    assert all(receiver.linked(span) == ["micro-batch"] for span in asked)


async def test_no_text_is_in_a_span_and_errors_are_codes(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError(TEXT)

    service = Service(receiver.url, share=1.0)
    async with asking(service) as client:
        monkeypatch.setattr(service.classifier._batcher, "_predict", fails)
        asked = {"text": TEXT}
        ids = {
            "x-request-id": f"of {TEXT.encode().hex()}",
            "tracestate": f"a={TEXT.encode().hex()}",
        }
        assert (await client.post("/classify", json=asked, headers=ids)).status_code == 500
        assert (await client.post(f"/{TEXT}", json=asked)).status_code == 404
        assert (await client.post("/classify", json={"text": TEXT * 9})).status_code == 413
        monkeypatch.setattr(service.tokenizer._chain._models, "encode", fails)
        assert (await client.post("/classify", json=asked)).status_code == 500
    await service.send_all()
    sent = b"".join(receiver.bodies)
    assert TEXT.encode() not in sent
    assert TEXT.encode().hex().encode() not in sent
    assert "POST" in {span.name for _, span in receiver.spans}
    failed = {(span.name, span.status.message) for _, span in receiver.spans if span.status.code}
    assert ("tokenize", "internal_error") in failed
    assert ("POST /classify", "500") in failed


def test_off_nothing_of_it_is_imported() -> None:
    code = (
        "import sys; import deployments.local, deployments.http.app, deployments.pipeline.batcher; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
