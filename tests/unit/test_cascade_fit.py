"""`rayclassify cascade` and `compare`: the threshold, its promise, the config, and the sums."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from deployments.cli import app
from deployments.config.check import check_config, load_config
from deployments.deploying.pinning import changed_since, pinned
from deployments.deploying.shadow_view import trials
from deployments.launch.preflight import check_models
from deployments.model.deployed import as_deployed
from deployments.model.load import fingerprint
from deployments.model.source import ModelNotFound
from deployments.optimise.cascading import Answers, fit
from deployments.optimise.labelled import BadData, Labelled
from deployments.optimise.running import Speed
from deployments.settings import ModelSettings, Settings
from deployments.tuning.config import with_cascade

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"
LABELS = ("no", "yes")
NAMES = ("small", "large")


def speed(texts_per_s: float) -> Speed:
    return Speed(1.0, 2.0, texts_per_s, 100.0, 100)


def drawn(n: int, seed: int, right_large: float = 0.95) -> tuple[Labelled, Answers, Answers]:
    """A small model that is right as often as its score says, and a large one that is right as
    often everywhere."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 2, n)
    scores = rng.uniform(0.5, 1.0, n)
    of_small = np.where(rng.random(n) < scores, gold, 1 - gold)
    of_large = np.where(rng.random(n) < right_large, gold, 1 - gold)
    data = Labelled([str(i) for i in range(n)], [LABELS[i] for i in gold])
    small = Answers([LABELS[i] for i in of_small], scores, LABELS, speed(1_000))
    large = Answers([LABELS[i] for i in of_large], np.ones(n), LABELS, speed(100))
    return data, small, large


def test_the_threshold_is_the_lowest_within_the_loss_and_every_higher_one_is_too() -> None:
    found = fit(*drawn(20_000, 1), NAMES, 0.01)
    # Texts of a score above t lose ∫ 0.95 - s ds / 0.5 from t to 1: 0.01 of all at t = 0.84.
    assert 0.8 <= found.threshold <= 0.875
    assert found.loss <= 0.015
    assert found.passed_on == pytest.approx((found.threshold - 0.5) / 0.5, abs=0.02)
    assert found.n_fitted == found.n_checked == 10_000
    assert fit(*drawn(20_000, 1), NAMES, 0.0).threshold > found.threshold


def test_the_bound_holds_over_many_tables_as_often_as_it_says() -> None:
    broken = 0
    for seed in range(100):
        found = fit(*drawn(1_000, seed), NAMES, 0.01)
        truth = (1 - found.threshold) / 0.5 * (0.95 - (1 + found.threshold) / 2)
        broken += found.at_most < truth
        assert found.loss <= found.at_most
    assert broken <= 5


def test_speed_is_of_both_models_one_after_the_other() -> None:
    found = fit(*drawn(2_000, 2), NAMES, 0.01)
    assert 1 / found.texts_per_s == pytest.approx(1 / 1_000 + found.passed_on / 100)


def test_a_small_model_that_is_always_wrong_is_refused() -> None:
    data, small, large = drawn(2_000, 3)
    wrong = ["no" if label == "yes" else "yes" for label in data.labels]
    always = replace(small, predicted=wrong, scores=np.ones(len(wrong)))
    with pytest.raises(BadData, match=r"no threshold loses at most 0\.01"):
        fit(data, always, large, NAMES, 0.01)


def test_labels_may_stand_in_another_order_and_not_have_other_names() -> None:
    data, small, large = drawn(2_000, 4)
    same = fit(data, replace(small, labels=LABELS[::-1]), large, NAMES, 0.01)
    assert same == fit(data, small, large, NAMES, 0.01)
    with pytest.raises(BadData, match="small has no, maybe; large has no, yes"):
        fit(data, replace(small, labels=("no", "maybe")), large, NAMES, 0.01)
    strange = replace(data, labels=["maybe", *data.labels[1:]])
    with pytest.raises(BadData, match="labels that large does not have"):
        fit(strange, small, large, NAMES, 0.01)


# --- the config


def test_the_config_is_written_with_its_comments_and_passes_the_strict_check() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    once = with_cascade(text, "classify", "./small", "./large", 0.8)
    assert with_cascade(once, "classify", "./small", "./large", 0.8) == once
    config = yaml.safe_load(once)
    assert check_config(config) == []
    (application,) = config["applications"]
    assert application["args"]["model"] == {"id": "./large"}
    assert application["args"]["cascade"] == {"model": {"id": "./small"}, "threshold": 0.8}
    first = next(d for d in application["deployments"] if d["name"] == "FirstClassifier")
    assert "fed_by" not in json.dumps(first)
    classifier = next(d for d in application["deployments"] if d["name"] == "Classifier")
    assert first["ray_actor_options"] == classifier["ray_actor_options"] == {"num_cpus": 0.4}
    lost = {line.split("#")[-1] for line in text.splitlines() if "#" in line}
    lost -= {line.split("#")[-1] for line in once.splitlines() if "#" in line}
    assert lost == {" pin a commit when `id` is on the hub"}  # with the line that it explained


def config(**args: Any) -> dict[str, Any]:
    found = load_config(CONFIG)
    found["applications"][0]["args"] |= args
    return found


def test_a_deployment_for_a_part_that_is_off_is_named_and_one_that_is_missing_too() -> None:
    (missing,) = check_config(config(shadow={"model": {"id": "m"}}))
    assert "ShadowClassifier is not declared" in missing.message
    extra = config()
    extra["applications"][0]["deployments"].append({"name": "FirstClassifier", "num_replicas": 1})
    (unused,) = check_config(extra)
    assert "args.cascade.model, which is not there" in unused.message
    misspelt = check_config(config(cascade={"modle": {"id": "m"}}))
    assert any("did you mean model?" in one.message for one in misspelt)


# --- what is deployed


@pytest.fixture
def two(demo_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(demo_model, one)
    shutil.copytree(demo_model, other)
    return one, other


def relabel(model: Path, *labels: str) -> None:
    path = model / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["id2label"] = {str(i): label for i, label in enumerate(labels)}
    raw["label2id"] = {label: i for i, label in enumerate(labels)}
    path.write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize("part", ["cascade", "shadow"])
def test_each_model_is_pinned_and_other_labels_are_refused_with_both_lists(
    two: tuple[Path, Path], part: str
) -> None:
    one, other = map(str, two)
    args = {"model": {"id": one}, part: {"model": {"id": other}}}
    relabel(two[1], "positive", "negative")  # another order
    settings = as_deployed(Settings.model_validate(args))
    own = settings.of("cascade" if part == "cascade" else "shadow")
    assert own is not None
    assert own.model.fingerprint == fingerprint(ModelSettings(id=other))
    application = pinned({"import_path": "deployments.app:build", "args": args})
    assert application["args"][part]["model"]["fingerprint"] == own.model.fingerprint
    assert not changed_since(application)
    relabel(two[1], "bad", "good")
    assert changed_since(application)
    with pytest.raises(ModelNotFound, match=r"negative, positive.*bad, good"):
        as_deployed(Settings.model_validate(args))
    (found,) = check_models({"applications": [{**application, "args": args}]})
    assert "bad, good" in found.message
    (two[1] / "model.safetensors").unlink()
    assert [
        one.path for one in check_models({"applications": [{**application, "args": args}]})
    ] == [f"applications[0].args.{part}.model.id"]


def test_a_cascade_of_multi_label_models_is_refused(two: tuple[Path, Path]) -> None:
    for model in two:
        path = model / "config.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["problem_type"] = "multi_label_classification"
        path.write_text(json.dumps(raw), encoding="utf-8")
    args = {"model": {"id": str(two[0])}, "cascade": {"model": {"id": str(two[1])}}}
    with pytest.raises(ModelNotFound, match="one label a text"):
        as_deployed(Settings.model_validate(args))


def test_neither_part_changes_what_the_other_models_are_told() -> None:
    plain = Settings.model_validate({"model": {"id": "a"}})
    settings = Settings.model_validate(
        {"model": {"id": "a"}, "engine": {"dtype": "float32"}, "cascade": {"model": {"id": "b"}}}
    )
    own = settings.of("cascade")
    assert own is not None
    assert (own.model.id, own.engine.dtype, own.cascade.model) == ("b", "float32", None)
    assert plain.of("cascade") is plain.of("shadow") is None


# --- commands


def table(path: Path, n: int = 60) -> Path:
    rows = [f"很好{i},positive\n太差{i},negative\n" for i in range(n)]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return path


@pytest.mark.usefixtures("at_once")
def test_the_command_fits_writes_and_overwrites_nothing(
    demo_model: Path, make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    small = make_tiny_model(id2label={0: "positive", 1: "negative"})
    output, run = tmp_path / "cascade.yaml", CliRunner().invoke
    command = ["cascade", str(small), str(demo_model), "--data", str(table(tmp_path / "rows.csv"))]
    command += ["--config", str(CONFIG), "-o", str(output), "--max-loss", "0.5"]
    command += ["--engine", "torch", "--dtype", "float32"]
    found = run(app, [*command, "--json"])
    assert found.exit_code == 0, found.output
    assert check_config(load_config(output)) == []
    told = json.loads(found.stdout)
    assert told["n_checked"] == 60
    assert told["loss"] <= told["at_most"]
    assert "--force" in run(app, command).output


@pytest.mark.parametrize("wrong", ["missing.csv", "labels"])
def test_a_table_that_tells_nothing_is_the_callers_fault(
    demo_model: Path, tmp_path: Path, wrong: str
) -> None:
    path = tmp_path / wrong
    if wrong == "labels":
        path = table(tmp_path / "rows.csv")
        path.write_text(path.read_text(encoding="utf-8").replace("positive", "gut"), "utf-8")
    command = ["cascade", str(demo_model), str(demo_model), "--data", str(path)]
    found = CliRunner().invoke(app, [*command, "--engine", "torch", "--dtype", "float32"])
    assert found.exit_code == 2
    assert "gut" in found.output or "missing.csv" in found.output


def sample(name: str, value: float, **labels: str) -> tuple[Any, float]:
    return (name, tuple(sorted({"application": "a", **labels}.items()))), value


def test_what_the_replicas_say_of_a_model_on_trial_adds_up() -> None:
    samples = dict(
        [
            *(
                sample("shadow_labels_total", 45.0, label="x", shadow_label="x", replica=replica)
                for replica in ("1", "2")
            ),
            sample("shadow_labels_total", 7.0, label="x", shadow_label="y"),
            sample("shadow_labels_total", 3.0, label="y", shadow_label="x"),
            sample("shadow_texts_total", 100.0, result="compared"),
            sample("shadow_texts_total", 5.0, result="dropped"),
            sample("shadow_score_difference_sum", 8.0),
            sample("stage_seconds_sum", 2.0, stage="model", deployment="Classifier"),
            sample("texts_total", 1_000.0, stage="model", deployment="Classifier"),
            sample("stage_seconds_sum", 9.0, stage="queue", deployment="Classifier"),
            sample("stage_seconds_sum", 0.4, stage="model", deployment="ShadowClassifier"),
            sample("texts_total", 100.0, stage="model", deployment="ShadowClassifier"),
        ]
    )
    (found,) = trials(samples)
    assert (found.compared, found.dropped, found.failed, found.agreement) == (100, 5, 0, 0.9)
    # As scipy.stats.binomtest(90, 100).proportion_ci(method="wilson") has it.
    assert (found.low, found.high) == pytest.approx((0.82563, 0.94477), abs=1e-5)
    assert (found.score_difference, found.seconds_per_text) == (0.08, 0.002)
    assert found.shadow_seconds_per_text == 0.004
    assert list(found.changes.items()) == [(("x", "y"), 7), (("y", "x"), 3)]
    assert trials(samples, "another") == []
    assert found.to_json()["changes"][0] == {"label": "x", "shadow_label": "y", "texts": 7}
