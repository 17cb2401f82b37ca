"""The deployments in one process: real Tokenizer and Postprocessor, behind plain handles."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

from deployments.engines.null import NullEngine
from deployments.model.load import load_parts
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.types import Logits, OtherModel
from deployments.postprocessor import Postprocessor
from deployments.settings import PARTS, Settings
from deployments.tokenizer import Tokenizer

Predict = Callable[..., Any]
"""As `TokenBatcher.submit`, or a plain function."""


def handle(**methods: Callable[..., Any]) -> Any:
    """As a DeploymentHandle: `handle.options(method_name=...).remote(...)` is awaited."""

    def options(method_name: str, **_: Any) -> SimpleNamespace:
        async def remote(*args: Any) -> Any:
            answer = methods[method_name](*args)
            return await answer if inspect.isawaitable(answer) else answer

        return SimpleNamespace(remote=remote)

    return SimpleNamespace(options=options)


class Classifiers:
    """As the Classifiers of one model at a time; `serve` replaces them by those of another."""

    def __init__(self, parts: ModelParts, predict: Predict | None = None) -> None:
        self.serve(parts, predict)

    def serve(self, parts: ModelParts, predict: Predict | None = None) -> None:
        self._parts = parts
        self._predict = predict or (lambda batch, *_: NullEngine().predict(batch))

    @property
    def version(self) -> str:
        return self._parts.version

    async def predict(self, batch: Any, *how: Any) -> Logits | OtherModel:
        version, mine = self.version, batch.of(self.version)
        if mine is None:
            return OtherModel(version)
        logits = self._predict(mine, *how)
        if inspect.isawaitable(logits):
            logits = await logits
        return Logits(logits.values, logits.errors, version)

    async def parts(self, known: Collection[str]) -> ModelParts | None:
        return None if self.version in known else self._parts


def tokenizer(
    settings: Settings,
    predict: Predict | None = None,
    classifiers: Classifiers | None = None,
    explain: Callable[..., Any] | None = None,
) -> Tokenizer:
    """A Tokenizer whose other stages are in this process; its `_chain.loading` gets it ready."""
    there = classifiers or Classifiers(load_parts(settings.model), predict)
    postprocessor = Postprocessor()
    beside = {
        part: _calls(Classifiers(load_parts(own.model)))
        for part in PARTS
        if (own := settings.of(part)) is not None
    }
    return Tokenizer(
        settings,
        _calls(there),
        handle(
            postprocess=postprocessor.postprocess,
            live=postprocessor.live,
            drift=postprocessor.drift,
        ),
        beside,
        None if explain is None else handle(ready=lambda: "", explain=explain),
    )


def _calls(classifiers: Classifiers) -> Any:
    return handle(predict=classifiers.predict, parts=classifiers.parts)
