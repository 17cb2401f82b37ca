"""Serve's own gRPC server in this process, with a replica's part of the way behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from ray.serve._private.constants import HEALTHY_MESSAGE
from ray.serve._private.grpc_util import gRPCGenericServer, start_grpc_server
from ray.serve.config import gRPCOptions
from ray.serve.generated.serve_pb2 import HealthzResponse
from ray.serve.grpc_util import RayServegRPCContext

from deployments.config.keys import SERVICER
from deployments.grpc.edge import GrpcEdge
from deployments.grpc.generated import open_inference_pb2 as oip
from deployments.grpc.methods import GrpcMethods
from deployments.launch.ports import next_port


class Replica(GrpcMethods):
    """Calls a method by the RPC's name, as Serve's replica does."""

    def __init__(self, edge: GrpcEdge) -> None:
        self._edge = edge

    @property
    def grpc_edge(self) -> GrpcEdge:
        return self._edge

    async def Healthz(self, request: Any, grpc_context: Any) -> HealthzResponse:
        """Serve's own, which HAProxy asks."""
        return HealthzResponse(message=HEALTHY_MESSAGE)

    def handler(self, service_method: str, streaming_type: Any) -> Any:
        async def answer(request: Any, context: Any) -> bytes:
            ours = RayServegRPCContext(context)
            ours.set_trailing_metadata([("request_id", "of-serve")])
            method = getattr(self, service_method.rpartition("/")[2])
            message = await method(request, grpc_context=ours)
            ours._set_on_grpc_context(context)
            content: bytes = message.SerializeToString()
            return content

        return answer


class Asking:
    """A caller with stubs of its own. trailing: metadata behind the last answer."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.trailing: dict[str, Any] = {}

    def __call__(self, name: str, request: Any, timeout_s: float = 30.0, **metadata: str) -> Any:
        """metadata: with - for each _."""
        answer = getattr(oip, type(request).__name__.replace("Request", "Response"))
        call = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        try:
            message, told = call.with_call(request, timeout=timeout_s, metadata=sent)
        except grpc.RpcError as error:
            self.trailing = dict(error.trailing_metadata() or ())
            raise
        self.trailing = dict(told.trailing_metadata())
        return message


@contextmanager
def serving(edge: GrpcEdge) -> Iterator[int]:
    """Its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    options = gRPCOptions(port=next_port(), grpc_servicer_functions=[SERVICER])

    async def start() -> gRPCGenericServer:
        _, server = await start_grpc_server(Replica(edge).handler, options, event_loop=loop)
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield options.port
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def served(edge: GrpcEdge) -> Iterator[Asking]:
    """Somebody who asks at its door."""
    with serving(edge) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Asking(channel)
