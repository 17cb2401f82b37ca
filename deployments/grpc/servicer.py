"""What Serve's gRPC servers are told to take, in replicas and proxies.

Serve loads this where `grpc_options.grpc_servicer_functions` of the YAML names
`deployments.grpc.servicer:add_to_server`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2 as health

from deployments.grpc.call import deadline_of
from deployments.grpc.generated import open_inference_pb2 as oip

_INFERENCE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_HEALTH = health.DESCRIPTOR.services_by_name["Health"]
# Watch is left out: a stream without an end would keep replicas from ending. gRPC's clients take
# UNIMPLEMENTED for healthy.
_OF_HEALTH = ("Check",)

Answer = Callable[[Any, Any], Awaitable[Any]]


def add_to_server(servicer: object, server: grpc.Server) -> None:
    """Has `server` take our RPCs; Serve puts its own way to a replica in place of `servicer`."""
    every = [method.name for method in _INFERENCE.methods]
    for service, names in ((_INFERENCE, every), (_HEALTH, _OF_HEALTH)):
        server.add_generic_rpc_handlers((_Handlers(service, names, servicer),))


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """RPCs of one service, which learn how long their callers wait.

    _method_handlers: Serve reads them, and puts its own there.
    """

    def __init__(self, service: ServiceDescriptor, names: Iterable[str], servicer: object) -> None:
        self._method_handlers = {
            f"/{service.full_name}/{name}": grpc.unary_unary_rpc_method_handler(
                getattr(servicer, name),
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for name in names
            for method in (service.methods_by_name[name],)
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = self._method_handlers.get(handler_call_details.method)
        if handler is None:
            return None
        return handler._replace(unary_unary=_with_deadline(handler.unary_unary))


def _with_deadline(answer: Answer) -> Answer:
    async def dated(request: Any, context: Any) -> Any:
        left_s = context.time_remaining()
        return await answer(request, context if left_s is None else _Dated(context, left_s))

    return dated


class _Dated:
    """A context whose metadata say how long the caller waits: Serve hands on nothing else of it."""

    def __init__(self, context: Any, left_s: float) -> None:
        self._context = context
        self._left_s = left_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        return [*self._context.invocation_metadata(), deadline_of(self._left_s)]
