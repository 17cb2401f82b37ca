"""GET /v1/models, which KServe's clients and OpenAI's both ask: one answer that both understand."""

from __future__ import annotations

import time

from deployments.http.dialects.base import Json, Page, operation
from deployments.http.dialects.kserve_words import ERROR, PAGE_STATUSES
from deployments.http.service import ClassifyService
from deployments.settings import DialectName, DialectSettings

PATH = "/v1/models"

# The first of these that is spoken has the page, as a path belongs to one dialect.
_SHOWN_BY: tuple[DialectName, ...] = ("kserve", "openai")


def model_list(speaker: DialectName, settings: DialectSettings, model: str) -> dict[str, Page]:
    """The page, for the `pages` of the dialect `speaker`; nothing where another dialect has it.

    model: its name in URLs.
    """
    if speaker != next((name for name in _SHOWN_BY if name in settings.spoken), None):
        return {}
    one = {"id": model, "object": "model", "created": int(time.time()), "owned_by": "rayclassify"}
    known: Json = {"object": "list", "data": [one], "models": [model]}

    async def answer(service: ClassifyService) -> Json:
        return known

    schema = {
        "type": "object",
        "required": ["object", "data", "models"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"type": "object"}},
            "models": {"type": "array", "items": {"type": "string"}},
        },
    }
    summary = "The models there are, as KServe and OpenAI list them"
    described = operation("model_list", summary, {}, schema, PAGE_STATUSES, ERROR)
    return {PATH: Page(answer, described)}
