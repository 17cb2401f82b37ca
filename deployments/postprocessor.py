"""Postprocessor: logits → labels, scores, top_k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployments.core.coredump import forbid_core_dumps
from deployments.core.model_source import model_info
from deployments.core.postprocess import LabelDecoder
from deployments.core.types import Answer, Logits, Options
from deployments.replica import live_settings, raises_service_errors, set_log_level
from deployments.settings import ModelSettings, PostprocessorUserConfig


class Postprocessor:
    """Needs the model's config only, so its replicas are small and start at once."""

    def __init__(self, model: ModelSettings) -> None:
        forbid_core_dumps()
        self._decoder = LabelDecoder(model_info(model))
        self._live: PostprocessorUserConfig | None = None

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._live = live = live_settings(PostprocessorUserConfig, user_config, self._live)
        self._decoder.threshold = live.threshold
        self._decoder.top_k = live.top_k
        self._decoder.round_scores = live.round_scores
        set_log_level(live.log_level)

    @raises_service_errors
    async def postprocess(self, logits: Logits, options: Sequence[Options]) -> list[Answer]:
        """One answer per text; see `LabelDecoder.decode`."""
        return self._decoder.decode(logits, options)
