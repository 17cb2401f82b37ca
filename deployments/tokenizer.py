"""Tokenizer: the ingress. HTTP, gRPC and handle calls in, micro-batches through the chain, out."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ray.serve.handle import DeploymentHandle

from deployments.access.callers import Callers
from deployments.grpc.methods import GrpcMethods
from deployments.http.app import create_app
from deployments.http.call import read_call
from deployments.http.dialects import dialects
from deployments.http.json_body import Kind
from deployments.http.request_log import REQUESTS
from deployments.http.schemas import ClassifyRequest, ExplainRequest
from deployments.pipeline.errors import NotImplementedHere, ServiceError
from deployments.pipeline.explaining import OFF, Explain, Explaining, about
from deployments.pipeline.observer import code_of, outcome_of
from deployments.pipeline.token_views import Token
from deployments.pipeline.types import Answer, TextInput
from deployments.privacy.audit import AuditLog
from deployments.privacy.coredump import forbid_core_dumps
from deployments.replica.base import (
    Replica,
    live_settings,
    raises_service_errors,
    request_id_of_call,
    set_log_level,
)
from deployments.replica.cluster_view import ClusterView
from deployments.replica.drift_state import DriftState
from deployments.replica.explainers import Explainers
from deployments.replica.metrics import RayObserver, metrics_addresses
from deployments.replica.model_chain import ModelChain
from deployments.replica.second_models import SecondModels
from deployments.replica.tracing import TracedApp, tracer_of
from deployments.scaling.policy import AHEAD_S, BusyClock
from deployments.settings import Part, Settings
from deployments.user_config import TokenizerUserConfig

if TYPE_CHECKING:
    from deployments.grpc.edge import GrpcEdge


class Tokenizer(Replica, GrpcMethods):
    """Implements `ClassifyService` for the edges, HTTP's and gRPC's, and `classify` for handles:
    one path."""

    def __init__(
        self,
        settings: Settings,
        classifier: DeploymentHandle,
        postprocessor: DeploymentHandle,
        beside: dict[Part, DeploymentHandle] | None = None,
        explainer: DeploymentHandle | None = None,
    ) -> None:
        """beside: the Classifiers of `args.cascade` and `args.shadow`, where these are on.
        explainer: where `args.explain` is on."""
        forbid_core_dumps()
        set_log_level("INFO")
        self._settings = settings
        self._live: TokenizerUserConfig | None = None
        self._audit = AuditLog(settings.audit) if settings.audit.directory is not None else None
        self._observer = RayObserver("Tokenizer")
        self._tracer = tracer_of(settings.tracing, "Tokenizer")
        self._callers = Callers(settings.access) if settings.access.enabled else None
        self._cluster = ClusterView()
        self._chain = ModelChain(
            settings,
            classifier,
            postprocessor,
            observer=self._observer,
            name_model=self._audit is not None,
            tracer=self._tracer,
        )
        self._beside: SecondModels | None = None
        self._classify = self._chain.classify
        if beside:
            self._beside = SecondModels(
                settings,
                self._chain,
                beside,
                postprocessor,
                lambda: None if self._live is None else self._live.cascade_threshold,
                observer=self._observer,
                name_model=self._audit is not None,
                tracer=self._tracer,
            )
            self._classify = self._beside.classify
        self._explaining: Explaining | None = None
        if explainer is not None:
            # By the large model of a cascade, which Explainers have.
            self._explaining = Explaining(
                self._chain.classify,
                Explainers(explainer),
                self._chain.labels,
                settings.explain,
                settings.limits.request_timeout_s,
            )
        self._drift = DriftState(self._observer, postprocessor)
        self._observer.watch("pending_texts", self._pending)
        if self._audit is not None:
            for chain in (self._chain, *(self._beside.chains.values() if self._beside else ())):
                chain.loading.add_done_callback(self._name_engine)

    def __serve_build_asgi_app__(self) -> Any:
        settings = self._settings
        spoken = dialects(settings.limits, settings.dialects, settings.model.id)
        app = create_app(
            self,
            settings.limits,
            settings.access,
            self._audit,
            self._observer,
            spoken,
            self._callers,
            metrics_addresses,
        )
        if self._tracer is None:
            return app
        return TracedApp(app, self._tracer, {path for one in spoken for path in one.paths})

    @cached_property
    def grpc_edge(self) -> GrpcEdge:
        """See `GrpcMethods`."""
        from deployments.grpc.edge import GrpcEdge

        return GrpcEdge(self, self._settings, self._callers, self._audit, self._observer)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._live = live_settings(TokenizerUserConfig, user_config, self._live)
        set_log_level(self._live.log_level)
        REQUESTS.one_in = self._live.access_log_one_in

    @raises_service_errors
    async def classify(
        self,
        text: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        client: str = "",
        **options: Any,
    ) -> Answer | list[Answer]:
        """What POST /classify answers, for handle calls from inside Ray.

        One text gives one answer; a list gives a list in order, with `{"error": ...}` in the place
        of a bad text. `options` are the other fields of the request: text_pair, top_k, truncation,
        raw_scores, threshold, timeout_ms, priority. client: for fair turns, any name.

        Raises:
            ServiceError: of the same kinds as over HTTP; see pipeline/errors.py.
        """
        return await self._called(text, options, timeout_s, client, ClassifyRequest)

    @raises_service_errors
    async def explain(
        self,
        text: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        client: str = "",
        **options: Any,
    ) -> Answer | list[Answer]:
        """What POST /explain answers, as `classify`. `options` has target, method and passes too.

        Raises:
            NotImplementedHere: explanations are off.
            ServiceError: as `classify`.
        """
        return await self._called(text, options, timeout_s, client, ExplainRequest)

    async def _called(
        self, text: Any, options: dict[str, Any], timeout_s: float | None, client: str, kind: Kind
    ) -> Answer | list[Answer]:
        try:
            call = read_call(text, options, self._settings.limits, timeout_s, client, kind)
            if call.explain is None:
                results = await self.classify_inputs(call.inputs, call.timeout_s)
            else:
                results = await self.explain_inputs(call.inputs, call.explain, call.timeout_s)
            if self._audit is not None:
                caller = call.client or "handle"
                self._audit.record(call.inputs, results, request_id_of_call(), caller)
            errors = [r for r in results if isinstance(r, ServiceError)]
            answer = call.answer(results)
        except CancelledError:
            self._observer.request("handle", "cancelled")
            raise
        except Exception as exc:
            self._observer.refused(code_of(exc), 1)
            self._observer.request("handle", outcome_of(exc))
            if isinstance(exc, ServiceError):
                REQUESTS.refused(exc, request_id_of_call())
            raise
        if errors:  # of a list: a single text's is raised
            for error in errors:
                self._observer.refused(error.code, 1)
            REQUESTS.partly(errors, len(results), request_id_of_call())
        self._observer.request("handle", "ok")
        return answer

    async def classify_inputs(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        """See `ModelChain.classify` and `SecondModels.classify`."""
        if self._tracer is None:
            return await self._classify(inputs, timeout_s)
        # Over gRPC and by handles the trace begins here.
        with self._tracer.span("classify", about={"rayclassify.texts": len(inputs)}):
            return await self._classify(inputs, timeout_s)

    async def explain_inputs(
        self,
        inputs: Sequence[TextInput | ServiceError],
        how: Explain,
        timeout_s: float | None = None,
    ) -> list[Answer | ServiceError]:
        """See `Explaining.answers`.

        Raises:
            NotImplementedHere: explanations are off.
        """
        if self._explaining is None:
            raise NotImplementedHere(OFF)
        return await self._explaining.answers(inputs, how, timeout_s)

    async def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[Token]]:
        """See `TokenViews.tokenize`."""
        return await self._chain.tokens.tokenize(texts, add_special_tokens)

    async def decode(self, rows: Sequence[list[int]], skip_special_tokens: bool) -> list[str]:
        """See `TokenViews.decode`."""
        return await self._chain.tokens.decode(rows, skip_special_tokens)

    def _stats(self, busy: BusyClock) -> dict[str, float]:
        """Its event loop's share of a core, and what waits here for Classifiers."""
        return {**super()._stats(busy), AHEAD_S: self._chain.ahead_s()}

    def _pending(self) -> float:
        return self._chain.pending + (0 if self._beside is None else self._beside.pending)

    def _name_engine(self, _: object) -> None:
        if self._audit is not None:
            self._audit.engine = self._chain.engine
            if self._beside is not None and "cascade" in self._beside.chains:
                self._audit.first_engine = self._beside.chains["cascade"].engine

    async def readiness(self) -> None:
        """Raises NotReady until a text has gone through the whole chain once."""
        await self._chain.readiness()
        if self._beside is not None:
            await self._beside.readiness()

    async def info(self, certificate: bool = False) -> dict[str, Any]:
        """See `ModelChain.info` and `SecondModels.info`."""
        info = await self._chain.info(certificate)
        if self._explaining is not None:
            info["explain"] = about(self._settings.explain)
        return info if self._beside is None else info | await self._beside.info()

    async def state(self) -> dict[str, Any]:
        """See `ClassifyService.state`."""
        state = self._chain.state()
        name, application, deployments = await self._cluster.seen()
        drift = await self._drift.seen()
        return {
            "application": application,
            "deployments": deployments,
            "ingress": {"replica": name, **state["ingress"]},
            "classifiers": state["classifiers"],
            **({} if self._beside is None else self._beside.state()),
            **({"drift": drift} if drift else {}),
        }
