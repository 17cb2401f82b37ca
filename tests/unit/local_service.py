"""A real model behind the HTTP edge, in this process and without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.explain.explainer import Explainer
from deployments.http.call import Call
from deployments.local import LocalClassifier
from deployments.pipeline.cascade import Cascade
from deployments.pipeline.errors import Overloaded, ServiceError
from deployments.pipeline.explaining import Explain, Explaining, Unexplained, about
from deployments.pipeline.gate import Gate
from deployments.pipeline.token_views import Token, TokenViews
from deployments.pipeline.types import Answer, Load, TextInput
from deployments.settings import ExplainSettings, LimitSettings, LongTextSettings


class _One:
    """The service's model, as one of a cascade's two."""

    def __init__(self, service: LocalService) -> None:
        self._service = service

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        return await self._service.of_model(inputs, timeout_s)

    def labels(self) -> tuple[str, ...]:
        return self._service.local.loaded.parts.info.labels

    async def none_runs(self) -> bool:
        return False


class _Large(_One):
    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        if self._service.large_fails:
            raise Overloaded("too many texts wait.", 1.0)
        return await super().classify(inputs, timeout_s)


class LocalService:
    """Implements `ClassifyService`. Its state is that of one Classifier, as a Gate hears of it.

    asked: requests so far. delay_s: waited before each answer. explains: whether it says that it
    does. threshold: of a cascade, whose models are both the one; None: there is none. large_fails:
    its second model is overloaded.
    """

    threshold: float | None = None
    large_fails = False

    def __init__(self, model: Path) -> None:
        # Named, as measuring which engine is the fastest takes its time.
        engine = {"name": "torch", "dtype": "float32"}
        self.local = LocalClassifier({"model": {"id": str(model)}, "engine": engine})
        self._cascade = Cascade(_One(self), _Large(self), lambda: self.threshold or 0.0, 60.0)
        self.asked, self.delay_s = 0, 0.0
        self._gate = Gate(1_024, 5.0, time.monotonic)
        encoder = self.local.loaded.parts.encoder()
        self._views = TokenViews(lambda: encoder.untruncated)
        labels = self.local.loaded.parts.info.labels
        settings = ExplainSettings(enabled=True)
        self._explaining = Explaining(
            self.classify_inputs, self._explain, lambda: labels, settings, 60.0
        )
        self._explainer: Explainer | None = None
        self.explains = True
        self._passes = self._texts = self._tokens = 0

    async def classify_inputs(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        ask = self.of_model if self.threshold is None else self._cascade.classify
        answers = await ask(inputs, timeout_s)
        self._passes += 1
        self._texts += len(answers)
        self._tokens += sum(a["tokens"] for a in answers if not isinstance(a, ServiceError))
        self._gate.heard(Load("one", 9_000.0, 0, 5.0, self._passes, self._texts, self._tokens))
        return answers

    async def of_model(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        running = self.local._run(Call([*inputs], timeout_s, "", False))
        loop = self.local._loop
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(running, loop))

    async def explain_inputs(
        self,
        inputs: list[TextInput | ServiceError],
        how: Explain,
        timeout_s: float | None = None,
    ) -> list[Answer | ServiceError]:
        return await self._explaining.answers(inputs, how, timeout_s)

    async def _explain(self, asked: Unexplained) -> dict[str, Any]:
        if self._explainer is None:
            settings = self.local._settings
            self._explainer = Explainer(settings, self.local.loaded.parts)
        args = (asked.item, asked.target, asked.method, asked.passes)
        return await asyncio.to_thread(self._explainer.explain, *args)

    async def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[Token]]:
        return await self._views.tokenize(texts, add_special_tokens)

    async def decode(self, rows: Sequence[list[int]], skip_special_tokens: bool) -> list[str]:
        return await self._views.decode(rows, skip_special_tokens)

    async def readiness(self) -> None:
        return None

    async def info(self, certificate: bool = False) -> dict[str, Any]:
        known, engine = self.local.loaded.parts.info, self.local.loaded.engine.info()
        return {
            "model": Path(known.model).name,
            "labels": list(known.labels),
            "problem_type": known.problem_type,
            "max_length": known.max_length,
            "engine": engine.engine,
            "device": engine.device,
            "dtype": engine.dtype,
            "calibration": {"abstain_below": known.calibration.abstain_below},
            "long_text": LongTextSettings().model_dump(),
            "limits": LimitSettings().model_dump(include={"max_batch_texts"}),
            "dialects": ["tei"],
            **({"explain": about(ExplainSettings(enabled=True))} if self.explains else {}),
        }

    async def state(self) -> dict[str, Any]:
        state = self._gate.state()
        return {
            "application": {"name": "classify", "status": "RUNNING"},
            "deployments": [
                {"name": name, "status": "HEALTHY", "replicas": {"RUNNING": 1}}
                for name in ("Tokenizer", "Classifier", "Postprocessor")
            ],
            "ingress": {"replica": "here", **state["ingress"]},
            "classifiers": state["classifiers"],
        }
