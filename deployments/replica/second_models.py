"""What an ingress holds beside its model: a smaller one that answers first, one on trial behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.pipeline.cascade import Cascade
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.observer import Observer
from deployments.pipeline.shadow import Shadow
from deployments.pipeline.types import Answer, TextInput
from deployments.replica.model_chain import ModelChain
from deployments.replica.tracing import Tracer
from deployments.settings import Part, Settings

_SHOWN = ("model", "revision", "fingerprint", "engine", "device", "dtype")

Threshold = Callable[[], float | None]
"""The live threshold of a cascade; None: as `args` say."""


class SecondModels:
    """main: the chain of `args.model`. handles: of the Classifiers of each part that is on."""

    def __init__(
        self,
        settings: Settings,
        main: ModelChain,
        handles: dict[Part, DeploymentHandle],
        postprocessor: DeploymentHandle,
        threshold: Threshold,
        *,
        observer: Observer,
        name_model: bool,
        tracer: Tracer | None,
    ) -> None:
        self._classify = main.classify
        self.chains: dict[Part, ModelChain] = {}
        self._cascade: Cascade | None = None
        self._shadow: Shadow | None = None
        limit_s = settings.limits.request_timeout_s
        if (own := settings.of("cascade")) is not None:
            first = self.chains["cascade"] = ModelChain(
                own, handles["cascade"], postprocessor,
                observer=observer, name_model=name_model, tracer=tracer,
            )  # fmt: skip
            usual = settings.cascade.threshold
            self._cascade = Cascade(
                first, main, lambda: threshold() or usual, limit_s, observer
            )  # fmt: skip
            self._classify = self._cascade.classify
        if (own := settings.of("shadow")) is not None:
            # Silent: its texts are counted already, as those that were answered.
            tried = self.chains["shadow"] = ModelChain(own, handles["shadow"], postprocessor)
            about = settings.shadow
            self._shadow = Shadow(
                tried, main.labels, about.share, about.max_waiting_texts, limit_s, observer
            )

    async def classify(
        self, inputs: Sequence[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        """See `ClassifyService.classify_inputs`."""
        answers = await self._classify(inputs, timeout_s)
        if self._shadow is not None:
            self._shadow.offer(inputs, answers)
        return answers

    @property
    def pending(self) -> int:
        """Texts that wait for the first model of a cascade."""
        return self.chains["cascade"].pending if "cascade" in self.chains else 0

    async def readiness(self) -> None:
        """Raises NotReady: as `ModelChain.readiness`, of the first model of a cascade."""
        if "cascade" in self.chains:
            await self.chains["cascade"].readiness()

    async def info(self) -> dict[str, Any]:
        """The parts `cascade` and `shadow` of `GET /info`; null where its model does not serve."""
        return {part: await _shown(chain) for part, chain in self.chains.items()}

    def state(self) -> dict[str, Any]:
        """The parts `cascade` and `shadow` of `GET /state`."""
        parts = {"cascade": self._cascade, "shadow": self._shadow}
        return {name: part.state() for name, part in parts.items() if part is not None}


async def _shown(chain: ModelChain) -> dict[str, Any] | None:
    try:
        told = await chain.info()
    except ServiceError:
        return None
    return {name: told[name] for name in _SHOWN}
