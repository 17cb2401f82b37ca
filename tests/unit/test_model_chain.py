"""An ingress that holds several models: each chain has its own gate, queue and readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import without_ray

from deployments.engines.null import NullEngine
from deployments.pipeline.errors import Overloaded
from deployments.pipeline.types import TextInput
from deployments.replica.model_chain import ModelChain
from deployments.settings import Settings

pytestmark = pytest.mark.anyio


def chain(model: Path, predict: Any = None, **limits: Any) -> ModelChain:
    settings = Settings.model_validate({"model": {"id": str(model)}, "limits": limits})
    return without_ray.tokenizer(settings, predict)._chain


async def test_a_full_chain_refuses_nothing_of_another(
    demo_model: Path, make_tiny_model: Callable[..., Path]
) -> None:
    free = asyncio.Event()
    free.set()

    async def slow(batch: Any, *_: Any) -> Any:
        await free.wait()
        return NullEngine().predict(batch)

    other = make_tiny_model(id2label={0: "spam", 1: "ham"})
    chains = {"full": chain(demo_model, slow, max_pending_texts=1), "idle": chain(other)}
    await asyncio.gather(*(one.loading for one in chains.values()))
    free.clear()
    waiting = asyncio.create_task(chains["full"].classify([TextInput("很好")]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await chains["full"].classify([TextInput("很好")])
    (answer,) = await chains["idle"].classify([TextInput("很好")])
    assert isinstance(answer, dict)
    assert set(answer["scores"]) == {"spam", "ham"}
    free.set()
    (answer,) = await waiting
    assert isinstance(answer, dict)
    assert set(answer["scores"]) == {"positive", "negative"}
