"""What an Observer hears of: each stage once, batches, cut texts, errors and labels."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import numpy as np
import pytest
import without_ray
from ray.serve import metrics as ray_metrics

from deployments.http.app import create_app
from deployments.pipeline.errors import (
    DeadlineExceeded,
    EmptyText,
    NotReady,
    Overloaded,
    PredictionFailed,
)
from deployments.pipeline.observer import Observer, Stage, outcome_of
from deployments.replica import metrics
from deployments.replica.metric_table import BY_NAME, MAX_LABELS, OTHER_LABELS, SECONDS
from deployments.settings import Settings


class Heard(Observer):
    def __init__(self) -> None:
        self.stages: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()
        self.batches: list[tuple[int, int, int]] = []
        self.cut = 0
        self.refusals: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.watched: set[str] = set()

    def request(self, dialect: str, outcome: str) -> None:
        self.requests[dialect, outcome] += 1

    def watch(self, name: str, read: Any) -> None:
        assert read() >= 0
        self.watched.add(name)

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

    def labelled(self, labels: tuple[str, ...], best: Any, scores: Any) -> None:
        assert ((scores > 0) & (scores <= 1)).all()
        self.labels.update(labels[i] for i in best)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """Told by a Tokenizer and its Postprocessor, of the texts that follow."""
    heard = Heard()
    for stage in ("tokenizer", "postprocessor"):
        monkeypatch.setattr(f"deployments.{stage}.RayObserver", lambda where: heard)
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
            await client.post("/predict", json={"inputs": "很好"})
            await client.post("/classify", json={"input": "很好"})  # vLLM's words
        assert await replica.classify("很好")

    asyncio.run(main())
    assert heard.requests == {
        ("classify", "ok"): 2,
        ("classify", "client_error"): 1,
        ("tei", "ok"): 1,
        ("vllm", "ok"): 1,
        ("handle", "ok"): 1,
    }
    assert heard.stages == {"http": 4, "parse": 4, "tokenize": 5, "postprocess": 5}
    assert heard.texts["tokenize"] == 6
    assert heard.cut == 1
    assert heard.refusals == {"empty_text": 1, "invalid_input": 1}
    assert heard.labels.total() == 6


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


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    """What Ray's own classes were told, by name and labels: a counter's sum, a gauge's last."""
    told: dict[tuple[str, ...], float] = {}

    def key(metric: Any, tags: Any) -> tuple[str, ...]:
        assert set(tags) == set(metric._tag_keys)
        return metric._name.removeprefix("rayclassify_"), *tags.values()

    def inc(self: Any, value: float, tags: Any) -> None:
        assert value > 0
        told[key(self, tags)] = told.get(key(self, tags), 0) + value

    def set_(self: Any, value: float, tags: Any) -> None:
        told[key(self, tags)] = value

    monkeypatch.setattr(ray_metrics.Counter, "inc", inc)

    def begin(self: Any, value: float, tags: Any) -> None:
        assert value == 0
        told[key(self, tags)] = value

    monkeypatch.setattr(ray_metrics.Counter, "_record", begin)
    monkeypatch.setattr(ray_metrics.Gauge, "set", set_)
    return told


def test_a_flush_hands_ray_all_that_was_counted(recorded: dict[tuple[str, ...], float]) -> None:
    observer = metrics.RayObserver("Tokenizer")
    padding = 100.0
    observer.watch("padding_tokens_total", lambda: padding)
    observer.watch("queue_tokens", lambda: 7.0)
    observer.about("engine_info", {**dict.fromkeys(BY_NAME["engine_info"].labels, "x"), "more": 1})
    observer.request("classify", "ok")
    observer.stage("model", 0.0025, 3)
    observer.stage("model", 31.0, 1)
    observer.batch(3, 40, 20)
    observer.truncated(1)
    observer.refused("overloaded", 2)
    observer.retried("lost")
    observer.quarantined()
    observer.tokenizer_checked(same=True)
    observer.working({"busy": 0.5, "wait_s": 0.1, "tokens_per_s": 9.0})
    padding = 160.0
    observer.flush()
    first = dict(recorded)
    observer.request("classify", "ok")
    observer.flush()
    changed = {key: value for key, value in recorded.items() if first.get(key) != value}
    assert changed == {("requests_total", "classify", "ok"): 2}
    stages = {key[2:]: value for key, value in first.items() if key[0] == "stage_seconds_bucket"}
    assert len(stages) == len(SECONDS) + 1
    assert (stages["0.001",], stages["0.0025",], stages["30.0",], stages["+Inf",]) == (0, 1, 1, 2)
    assert first["stage_seconds_sum", "model"] == pytest.approx(31.0025)
    assert first["stage_seconds_count", "model"] == 2
    plain = {key: value for key, value in first.items() if "_bucket" not in key[0]}
    assert (
        plain.items()
        >= {
            ("requests_total", "classify", "ok"): 1,
            ("texts_total", "model"): 4,
            ("batch_texts_sum",): 3,
            ("batch_tokens_sum",): 40,
            ("tokens_total",): 40,
            ("padding_tokens_total",): 60,
            ("truncated_texts_total",): 1,
            ("refused_total", "overloaded"): 2,
            ("retries_total", "lost"): 1,
            ("quarantined_texts_total",): 1,
            ("tokenizer_checks_total",): 1,
            ("queue_tokens",): 7,
            ("busy_ratio",): 0.5,
            ("wait_seconds",): 0.1,
            ("capacity_tokens_per_second",): 9,
            ("engine_info", *["x"] * 6): 1,
        }.items()
    )


def test_scores_are_counted_by_label_and_labels_without_end_together(
    recorded: dict[tuple[str, ...], float],
) -> None:
    observer = metrics.RayObserver("Postprocessor")
    labels = tuple(f"l{i}" for i in range(MAX_LABELS + 5))
    best = np.asarray([0, 0, MAX_LABELS - 1, MAX_LABELS, MAX_LABELS + 4])
    observer.labelled(labels, best, np.asarray([0.95, 0.4, 0.2, 0.3, 0.3], np.float32))
    # Another version of the model, in an update.
    observer.labelled(("l0", "new"), np.asarray([0]), np.asarray([1.0], np.float32))
    observer.labelled(("mean",), np.asarray([0, 0]), None)
    observer.flush()
    counts = {key[1]: n for key, n in recorded.items() if key[0] == "labels_total"}
    last = f"l{MAX_LABELS - 1}"
    assert counts == {"l0": 3, last: 1, OTHER_LABELS: 2, "mean": 2}
    assert recorded["score_count", "l0"] == 3
    assert recorded["score_sum", "l0"] == pytest.approx(2.35)
    buckets = {k[2]: n for k, n in recorded.items() if k[:2] == ("score_bucket", "l0")}
    assert (buckets["0.3"], buckets["0.4"], buckets["0.95"], buckets["1.0"]) == (0, 1, 2, 3)
    assert not [key for key in recorded if key[0].startswith("score") and key[1] == "mean"]


def test_it_flushes_by_itself(
    recorded: dict[tuple[str, ...], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FLUSH_S", 0.01)

    async def main() -> None:
        metrics.RayObserver("Tokenizer").request("tei", "refused")
        while not recorded:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert {key: n for key, n in recorded.items() if n} == {("requests_total", "tei", "refused"): 1}
    # From the start, or the first of them would not be seen to grow.
    assert recorded["retries_total", "lost"] == recorded["quarantined_texts_total",] == 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Overloaded("full"), "refused"),
        (NotReady("soon"), "refused"),
        (DeadlineExceeded("late"), "timeout"),
        (EmptyText("empty"), "client_error"),
        (PredictionFailed("no"), "server_error"),
        (RuntimeError("ours"), "server_error"),
    ],
)
def test_an_outcome_follows_from_the_error(error: Exception, outcome: str) -> None:
    assert outcome_of(error) == outcome


def test_it_is_silent_by_default() -> None:
    create_app(object(), Settings().limits)  # type: ignore[arg-type]
