"""What an Observer hears of: each stage once, batches, cut texts, errors and labels."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
import without_ray
from ray.serve import metrics as ray_metrics

from deployments.http.app import create_app
from deployments.pipeline.observer import Observer, Stage
from deployments.replica import metrics
from deployments.settings import Settings


class Heard(Observer):
    def __init__(self) -> None:
        self.stages: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()
        self.batches: list[tuple[int, int, int]] = []
        self.cut = 0
        self.refusals: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()

    def stage(self, stage: Stage, seconds: float, n_texts: int) -> None:
        assert seconds >= 0
        self.stages[stage] += 1
        self.texts[stage] += n_texts

    def batch(self, n_texts: int, tokens: int, longest: int) -> None:
        self.batches.append((n_texts, tokens, longest))

    def truncated(self, n_texts: int) -> None:
        self.cut += n_texts

    def refused(self, reason: str, n_texts: int) -> None:
        self.refusals[reason] += n_texts

    def labelled(self, counts: Mapping[str, int]) -> None:
        self.labels.update(counts)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Told by a Tokenizer and its Postprocessor, of the texts that follow."""
    heard = Heard()
    for stage in ("tokenizer", "postprocessor"):
        monkeypatch.setattr(f"deployments.{stage}.RayObserver", lambda: heard)
    return heard


def test_each_stage_is_heard_once_a_request(heard: Heard) -> None:
    async def main() -> None:
        replica = without_ray.tokenizer(Settings.model_validate({"engine": {"name": "none"}}))
        await replica._chain.loading
        heard.__init__()  # type: ignore[misc]
        app = replica.__serve_build_asgi_app__()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://here"
        ) as client:
            await client.post("/classify", json={"text": "很好"})
            await client.post("/classify", json={"text": ["很好", " ", "很" * 900]})
            await client.post("/classify", json={"txet": "很好"})

    asyncio.run(main())
    assert heard.stages == {"http": 2, "parse": 2, "tokenize": 2, "postprocess": 2}
    assert heard.texts["tokenize"] == 3
    assert heard.cut == 1
    assert heard.refusals == {"empty_text": 1, "invalid_input": 1}
    assert heard.labels.total() == 3


def test_a_batch_is_heard_with_its_queue_and_its_pass() -> None:
    from virtual_time import VirtualModel, run_virtually, texts

    heard = Heard()

    async def main() -> None:
        batcher = VirtualModel(lambda tokens, longest: 0.5).batcher(observer=heard)
        await asyncio.gather(
            *[
                batcher.submit(texts(5, 7, mark=10 * i), np.full(2, 9.0, np.float32))
                for i in range(3)
            ]
        )

    run_virtually(main())
    assert heard.batches == [(6, 36, 7)]
    assert heard.texts == {"queue": 6, "model": 6}


def test_rays_metrics_take_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is one that Ray's own classes accept, tags and all."""
    recorded: list[tuple[str, float, Any]] = []

    def record(self: Any, value: float = 1.0, tags: Any = None) -> None:
        assert set(tags or {}) <= set(self._tag_keys)
        recorded.append((self._name, value, tags))

    monkeypatch.setattr(ray_metrics.Counter, "inc", record)
    monkeypatch.setattr(ray_metrics.Histogram, "observe", record)
    monkeypatch.setattr(ray_metrics.Gauge, "set", record)
    observer = metrics.RayObserver()
    observer.stage("model", 0.02, 3)
    observer.batch(3, 40, 20)
    observer.truncated(1)
    observer.refused("overloaded", 2)
    observer.labelled({"positive": 2})
    observer.working({"busy": 0.5, "wait_s": 0.1, "tokens_per_s": 9.0})
    assert recorded == [
        ("rayclassify_stage_seconds", 0.02, {"stage": "model"}),
        ("rayclassify_batch_texts", 3, None),
        ("rayclassify_tokens_total", 40, None),
        ("rayclassify_truncated_texts_total", 1, None),
        ("rayclassify_refused_total", 2, {"reason": "overloaded"}),
        ("rayclassify_labels_total", 2, {"label": "positive"}),
        ("rayclassify_busy", 0.5, None),
        ("rayclassify_wait_s", 0.1, None),
        ("rayclassify_tokens_per_s", 9.0, None),
    ]


def test_it_is_silent_by_default() -> None:
    create_app(object(), Settings().limits)  # type: ignore[arg-type]
