"""Postprocessor: logits → labels, scores, top_k."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from deployments.pipeline.live_models import MAX_MODELS
from deployments.pipeline.tasks import Decoder, task_of
from deployments.pipeline.types import Answer, Logits, ModelInfo, Options
from deployments.privacy.coredump import forbid_core_dumps
from deployments.replica.base import Replica, live_settings, raises_service_errors, set_log_level
from deployments.replica.metrics import RayObserver
from deployments.replica.tracing import tracer_of
from deployments.settings import TracingSettings
from deployments.user_config import PostprocessorUserConfig

logger = logging.getLogger(__name__)


class Postprocessor(Replica):
    """Needs a model's labels only, so its replicas are small and start at once."""

    _observer: RayObserver

    def __init__(self, tracing: TracingSettings = TracingSettings()) -> None:  # noqa: B008
        forbid_core_dumps()
        set_log_level("INFO")
        # By the model's version, the one used last at the end.
        self._decoders: dict[str, Decoder] = {}
        self._live: PostprocessorUserConfig | None = None
        self._observer = RayObserver("Postprocessor")
        self._tracer = tracer_of(tracing, "Postprocessor")
        logger.info("ready; it loads nothing: the first call for a model brings its labels")

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._live = live = live_settings(PostprocessorUserConfig, user_config, self._live)
        self._decoders.clear()  # whoever asks next tells the labels again
        set_log_level(live.log_level)

    def live(self) -> dict[str, Any]:
        """What `user_config` says now, for `GET /info`."""
        live = self._live or PostprocessorUserConfig()
        return live.model_dump(exclude={"log_level"})

    def drift(self) -> list[dict[str, Any]]:
        """See `RayObserver.drift`."""
        return self._observer.drift()

    @raises_service_errors
    async def postprocess(
        self,
        logits: Logits,
        options: Sequence[Options],
        info: ModelInfo | None = None,
        trace: str | None = None,
    ) -> list[Answer] | None:
        """One answer per text; see `Decoder.decode`.

        info: of the model that `logits` name. None: as told by an earlier call; where there was
        none, the answer is None, and the caller tells.
        """
        decoder = self._decoders.pop(logits.model, None)
        if decoder is None:
            if info is None:
                return None
            decoder = self._decoder_for(info)
            logger.info(
                "decodes for model %s, version %s: %d labels, %s",
                info.model, logits.model, len(info.labels), info.problem_type,
            )  # fmt: skip
        self._decoders[logits.model] = decoder
        while len(self._decoders) > MAX_MODELS:
            del self._decoders[next(iter(self._decoders))]
        if self._tracer is None or trace is None:
            return decoder.decode(logits, options)
        with self._tracer.span("postprocess", trace, {"rayclassify.texts": len(options)}):
            return decoder.decode(logits, options)

    def _decoder_for(self, info: ModelInfo) -> Decoder:
        return task_of(info).decoder(info, self._live, self._observer)
