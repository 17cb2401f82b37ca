"""What each RPC answers, who may ask it, and the one way from an exception to a status."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2 as health
from starlette.types import Scope

from deployments.access.callers import Callers
from deployments.access.keys import Scope as AccessScope
from deployments.grpc.call import Context, scope_of
from deployments.grpc.generated import open_inference_pb2 as oip
from deployments.grpc.messages import question_of, response_of
from deployments.grpc.status import status_of
from deployments.http.access_gate import admit
from deployments.http.body import parsed
from deployments.http.classify_route import Answering
from deployments.http.dialects import name_in_urls
from deployments.http.dialects.oip_inference import SERVER, Inference
from deployments.http.request_log import REQUESTS
from deployments.http.responses import request_id_of
from deployments.http.serve_edge import TIMEOUT_S
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import NotFound, NotReady, TooLarge
from deployments.pipeline.observer import SILENT, Observer, Outcome, code_of, outcome_of
from deployments.privacy.audit import AuditLog
from deployments.settings import Settings

_SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


@dataclass(frozen=True, slots=True)
class Rpc:
    """answer: from a request and its scope. empty: what goes with an error.

    open: whether nobody needs a key. access_scope: what a key needs; None where any will do.
    """

    answer: Callable[[Any, Scope], Awaitable[Message]]
    empty: type[Message]
    open: bool = False
    access_scope: AccessScope | None = None


class GrpcEdge:
    """Answers the RPCs of one replica.

    callers: who asks, shared with HTTP so that a rate holds over both; None asks for no key.
    """

    def __init__(
        self,
        service: ClassifyService,
        settings: Settings,
        callers: Callers | None = None,
        audit: AuditLog | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self._service = service
        self._limits = settings.limits
        self._callers = callers
        self._observer = observer
        self._answering = Answering(service, audit, observer)
        name = name_in_urls(settings.dialects, settings.model.id)
        self._inference = Inference(settings.limits, name)
        self._rpcs = {
            "ServerLive": Rpc(self._server_live, oip.ServerLiveResponse, open=True),
            "ServerReady": Rpc(self._server_ready, oip.ServerReadyResponse, open=True),
            "ServerMetadata": Rpc(self._server_metadata, oip.ServerMetadataResponse),
            "ModelReady": Rpc(self._model_ready, oip.ModelReadyResponse),
            "ModelMetadata": Rpc(self._model_metadata, oip.ModelMetadataResponse),
            "ModelInfer": Rpc(self._model_infer, oip.ModelInferResponse, access_scope="classify"),
            "Check": Rpc(self._check, health.HealthCheckResponse, open=True),
        }

    async def answer(self, name: str, request: Message, context: Context) -> Message:
        """The answer of the RPC `name`; an error is set on `context`, and nothing raised.

        Serve logs what is raised here, with its message and its frames, which hold texts.
        """
        rpc = self._rpcs[name]
        scope = scope_of(context)
        try:
            if self._callers is not None and not rpc.open:
                await admit(scope, self._callers, rpc.access_scope)
            answer = await rpc.answer(request, scope)
            self._count(rpc, "ok")
            return answer
        except CancelledError as exc:
            self._count(rpc, "cancelled")
            exc.__traceback__ = None  # Serve keeps it in a cycle; its frames hold the text
            raise
        except Exception as exc:
            if rpc.access_scope:
                self._observer.refused(code_of(exc), 1)
            self._count(rpc, outcome_of(exc))
            status = status_of(exc, scope)
            exc.__traceback__ = None
        context.set_code(status.code)
        context.set_details(status.error.message)
        context.set_trailing_metadata(status.trailing)
        return rpc.empty()

    def _count(self, rpc: Rpc, outcome: Outcome) -> None:
        if rpc.access_scope:  # a question to classify
            self._observer.request("grpc", outcome)

    async def _server_live(self, request: object, scope: Scope) -> Message:
        return oip.ServerLiveResponse(live=True)

    async def _server_ready(self, request: object, scope: Scope) -> Message:
        return oip.ServerReadyResponse(ready=await self._is_ready())

    async def _server_metadata(self, request: object, scope: Scope) -> Message:
        return oip.ServerMetadataResponse(**SERVER)

    async def _model_ready(self, request: oip.ModelReadyRequest, scope: Scope) -> Message:
        if error := self._inference.stranger(request.name, request.version or None):
            raise error
        return oip.ModelReadyResponse(ready=await self._is_ready())

    async def _model_metadata(self, request: oip.ModelMetadataRequest, scope: Scope) -> Message:
        if error := self._inference.stranger(request.name, request.version or None):
            raise error
        return oip.ModelMetadataResponse(**self._inference.about(await self._service.info()))

    async def _check(self, request: health.HealthCheckRequest, scope: Scope) -> Message:
        if request.service not in ("", _SERVICE):
            raise NotFound(f"There is no such service here. It has {_SERVICE}.")
        serving = await self._is_ready()
        states = health.HealthCheckResponse.ServingStatus
        return health.HealthCheckResponse(status=states.SERVING if serving else states.NOT_SERVING)

    async def _is_ready(self) -> bool:
        try:
            await self._service.readiness()
        except NotReady:
            return False
        return True

    async def _model_infer(self, request: oip.ModelInferRequest, scope: Scope) -> Message:
        started = time.perf_counter()
        size, limit = request.ByteSize(), self._limits.max_body_bytes
        if size > limit:
            raise TooLarge(
                f"The request has {size} bytes; the limit is {limit}. Send several requests."
            )
        question = await parsed(size, question_of, request, self._inference, scope)
        now = time.perf_counter()
        self._observer.stage("parse", now - started, len(question.inputs))
        waits_s: float | None = scope.get(TIMEOUT_S)
        if question.timeout_s is not None and waits_s is not None:
            question = replace(question, timeout_s=min(question.timeout_s, waits_s))
        answers = await self._answering.answers(question, scope)
        response = response_of(question, answers, self._inference, scope)
        took_s = time.perf_counter() - started
        self._observer.stage("grpc", took_s, 1)
        if REQUESTS.one_in is not None:
            REQUESTS.answered(200, took_s, request_id_of(scope), scope)
        return response
