"""The methods that Serve calls on a Tokenizer replica, one for each RPC."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from deployments.grpc.call import Context
    from deployments.grpc.edge import GrpcEdge


class GrpcMethods(ABC):
    """Serve finds a method by the RPC's name, and gives it `grpc_context` by that name."""

    @property
    @abstractmethod
    def grpc_edge(self) -> GrpcEdge:
        """Made once somebody asks over gRPC: others need not load the messages."""

    async def ServerLive(self, request: Message, grpc_context: Context) -> Message:
        return await self.grpc_edge.answer("ServerLive", request, grpc_context)

    async def ServerReady(self, request: Message, grpc_context: Context) -> Message:
        return await self.grpc_edge.answer("ServerReady", request, grpc_context)

    async def ServerMetadata(self, request: Message, grpc_context: Context) -> Message:
        return await self.grpc_edge.answer("ServerMetadata", request, grpc_context)

    async def ModelReady(self, request: Message, grpc_context: Context) -> Message:
        return await self.grpc_edge.answer("ModelReady", request, grpc_context)

    async def ModelMetadata(self, request: Message, grpc_context: Context) -> Message:
        return await self.grpc_edge.answer("ModelMetadata", request, grpc_context)

    async def ModelInfer(self, request: Message, grpc_context: Context) -> Message:
        return await self.grpc_edge.answer("ModelInfer", request, grpc_context)

    async def Check(self, request: Message, grpc_context: Context) -> Message:
        """Of grpc.health.v1."""
        return await self.grpc_edge.answer("Check", request, grpc_context)
