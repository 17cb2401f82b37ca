"""`rayclassify calibrate`: known values, promises over many splits, the file, and answers by it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner
from typer.testing import Result as CliResult

from deployments.bulk.tables import Row
from deployments.cli import app
from deployments.local import LocalClassifier
from deployments.model.reading import read_info
from deployments.model.source import ModelRefused
from deployments.optimise.calibrating import calibrate, calibrate_sets
from deployments.optimise.calibration import (
    THRESHOLDS,
    abstain_below,
    fit_platt,
    fit_temperature,
    halves,
    label_set_from,
    reliability,
    softmax,
)
from deployments.optimise.labelled import BadData, Labelled, labelled
from deployments.optimise.running import Scored
from deployments.pipeline.tasks.text_classification import LabelDecoder
from deployments.pipeline.types import Calibration, Logits, ModelInfo, Options
from deployments.settings import ModelSettings
from deployments.user_config import PostprocessorUserConfig

RNG = np.random.default_rng(5)


def drawn(n: int, n_labels: int = 3, spread: float = 2.0) -> tuple[Any, Any]:
    """Logits whose softmax is exactly how often each label is right, and right labels."""
    logits = RNG.normal(0, spread, (n, n_labels))
    edges = softmax(logits).cumsum(1)
    return logits, (RNG.random((n, 1)) > edges).sum(1).clip(0, n_labels - 1)


# --- numbers


def test_without_scipy_it_says_what_to_install(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *at: None if name == "scipy" else found(name, *at)
    )
    table = tmp_path / "in.csv"
    table.write_text("text,label\n")
    output = ("--output", str(tmp_path / "out.json"))
    for command in (
        ("calibrate", str(demo_model), *output),
        ("baseline", str(demo_model), *output),
        ("cascade", str(demo_model), str(demo_model)),
        ("evaluate", str(demo_model), "another"),
    ):
        ended = CliRunner().invoke(app, [*command, "--data", str(table)])
        assert ended.exit_code == 1, ended.output
        assert "pip install -e '.[train]'" in ended.output


def test_a_known_temperature_is_found_and_the_error_falls() -> None:
    logits, gold = drawn(20_000)
    assert fit_temperature(3 * logits, gold) == pytest.approx(3, rel=0.05)
    right = logits.argmax(1) == gold
    sure, calm = softmax(3 * logits).max(1), softmax(3 * logits, 3).max(1)
    assert reliability(sure, right).ece > 0.1 > 0.02 > reliability(calm, right).ece


def test_the_calibration_error_is_the_mean_gap_of_bins() -> None:
    scores = np.array([0.91, 0.95, 0.61, 1.0])
    found = reliability(scores, np.array([True, False, True, True]))
    # Bins of 1/15: 0.61 alone (gap 0.39), 0.91 alone (0.09), the other two with mean 0.975 (0.475).
    assert found.ece == pytest.approx((0.39 + 0.09 + 2 * 0.475) / 4)
    assert found.count.sum() == 4


def test_known_lines_are_found_for_each_label() -> None:
    logits = RNG.normal(0, 2, (20_000, 2))
    true = 1 / (1 + np.exp(-(logits * [0.5, 2.0] + [1.0, -0.5])))
    lines = fit_platt(logits, RNG.random(logits.shape) < true)
    assert lines[0] == pytest.approx((0.5, 1.0), rel=0.1)
    assert lines[1] == pytest.approx((2.0, -0.5), rel=0.15)


def test_halves_share_out_each_label() -> None:
    gold = np.array([0] * 11 + [1] * 4)
    one, other = halves(15, gold)
    assert sorted([*one, *other]) == list(range(15))
    assert {tuple(sorted(np.bincount(gold[part]))) for part in (one, other)} <= {(2, 5), (2, 6)}


# --- promises


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_label_sets_cover_as_often_as_promised(coverage: float) -> None:
    n, splits = 200, 400
    logits, gold = drawn(50_000)
    scores = softmax(1.7 * logits)  # miscalibrated: the promise needs no calibration
    of_right = scores[np.arange(len(gold)), gold]
    covered = []
    for _ in range(splits):
        rows = RNG.choice(len(gold), n, replace=False)
        edge = label_set_from(scores[rows], gold[rows], coverage)
        covered.append((np.delete(of_right, rows) >= edge).mean())
    # Coverage given a split is Beta distributed (Vovk 2012); of all splits, its mean is promised.
    k = int((n + 1) * (1 - coverage))
    law = stats.beta(n + 1 - k, k)
    assert np.mean(covered) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(splits))
    assert np.mean(covered) >= coverage - 0.005
    low, high = law.interval(0.95)
    assert 0.90 < np.mean((low <= np.array(covered)) & (np.array(covered) <= high)) <= 1.0


def test_the_error_above_the_threshold_is_within_the_target() -> None:
    target, splits, n_found, n_broken = 0.20, 400, 0, 0
    logits, gold = drawn(50_000)
    confidence = softmax(2 * logits).max(1)
    right = logits.argmax(1) == gold
    true = {t: 1 - right[confidence >= t].mean() for t in THRESHOLDS}
    for _ in range(splits):
        rows = RNG.choice(len(gold), 500, replace=False)
        try:
            found = abstain_below(confidence[rows], right[rows], target)
        except BadData:
            continue
        n_found += 1
        n_broken += true[found.threshold] > target
    assert n_found > 0.9 * splits
    assert n_broken <= 0.05 * splits


def test_what_too_few_rows_can_promise_is_said_with_the_number() -> None:
    with pytest.raises(BadData, match=r"at most 0\.01 on 50 rows\. 592 sure rows"):
        abstain_below(np.full(50, 0.99), np.ones(50, bool), 0.01)
    with pytest.raises(BadData, match=r"0\.99 needs 99 rows here; there are 50"):
        label_set_from(np.full((50, 2), 0.5), np.zeros(50, int), 0.99)
    with pytest.raises(BadData, match="all labels together only"):
        label_set_from(np.tile([0.0, 1.0], (50, 1)), np.zeros(50, int), 0.9)


# --- rows → file


def test_a_model_is_fitted_on_one_half_and_checked_on_the_other() -> None:
    logits, gold = drawn(4_000)
    data = Labelled([f"t{i}" for i in range(4_000)], ["abc"[i] for i in gold])
    found = calibrate(data, Scored((2 * logits).tolist(), ("a", "b", "c")), "m", 0.15, 0.9)
    assert found.temperature == pytest.approx(2, rel=0.1)
    assert (found.n_fitted, found.n_checked) == (2_001, 1_999) or (
        abs(found.n_fitted - 2_000) <= 3 and found.n_fitted + found.n_checked == 4_000
    )
    assert found.after.ece < found.before.ece
    assert found.abstention is not None
    assert found.abstention.at_most <= 0.15
    assert set(found.content()) == {"temperature", "abstain_below", "label_set_from"}
    assert 1 <= found.mean_set_size <= 3
    with pytest.raises(BadData, match="labels that m does not have"):
        calibrate(data, Scored(logits.tolist(), ("a", "b", "d")), "m")
    logits[0, 0] = np.nan
    with pytest.raises(BadData, match="1 of 4,000 texts have no answer"):
        calibrate(data, Scored(logits.tolist(), ("a", "b", "c")), "m")


@pytest.fixture
def model(tmp_path: Path, demo_model: Path) -> Path:
    """The demo model, in a directory of its own."""
    directory = tmp_path / "model"
    directory.mkdir()
    for file in demo_model.iterdir():
        (directory / file.name).symlink_to(file)
    (directory / "calibration.json").unlink()
    return directory


def run(*args: str) -> CliResult:
    return CliRunner().invoke(app, ["calibrate", *args])


@pytest.mark.usefixtures("at_once")
def test_the_command_writes_what_the_chain_reads(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "heldout.jsonl"
    words = {
        "positive": ("质量很好", "非常满意", "太差了"),
        "negative": ("太差了", "再也不买", "很好"),
    }
    rows = [
        {"text": f"{word} {i} {label[0]}", "label": label}
        for i in range(25)
        for label, said in words.items()
        for word in said
    ]
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    plot = tmp_path / "reliability.svg"
    fixed = ("--engine", "torch", "--dtype", "float32")
    asked = (str(model), "--data", str(table), "--coverage", "0.9", "--plot", str(plot), *fixed)
    result = run(*asked)
    assert result.exit_code == 0, result.output
    assert "expected calibration error" in result.output
    assert "<svg" in plot.read_text(encoding="utf-8")
    written = json.loads((model / "calibration.json").read_text(encoding="utf-8"))
    assert set(written) == {"temperature", "label_set_from"}
    refused = run(*asked)
    assert refused.exit_code == 2
    assert "--force" in refused.output
    few = run(*asked[:3], "--target-error", "0.001", "--force", *fixed)
    assert few.exit_code == 2
    assert "no threshold promises" in few.output
    assert json.loads((model / "calibration.json").read_text(encoding="utf-8")) == written
    written["abstain_below"] = 0.999999
    (model / "calibration.json").write_text(json.dumps(written), encoding="utf-8")
    args = {"model": {"id": str(model)}, "engine": {"name": "torch", "dtype": "float32"}}
    with LocalClassifier(args) as classifier:
        answer: Any = classifier.classify("质量很好")
        assert answer["abstained"] is True
        assert answer["label"] == "positive"
        assert set(answer["scores"]) == {"negative", "positive"}
        assert answer["label_set"][0] == "positive"
        assert classifier.loaded.parts.info.calibration.abstain_below == 0.999999


# --- file → answers


def test_a_calibration_of_another_temperature_is_left_aside(model: Path) -> None:
    said = {"temperature": 1.5, "abstain_below": 0.8}
    (model / "calibration.json").write_text(json.dumps(said), encoding="utf-8")
    info, _, remarks = read_info(ModelSettings(id=str(model)))
    assert (info.temperature, info.calibration.abstain_below, remarks) == (1.5, 0.8, ())
    info, _, remarks = read_info(ModelSettings(id=str(model), temperature=1.0))
    assert (info.temperature, info.calibration) == (1.0, Calibration())
    assert "all is ignored" in remarks[-1]


@pytest.mark.parametrize(
    ("more", "about"),
    [
        ({"abstain_below": 1.5}, "abstain_below"),
        ({"label_set_from": "0.1"}, "label_set_from"),
        ({"platt": [[1, 0]]}, "platt` holds 1 pairs; the model has 2 labels"),
        ({"platt": [[1, 0], [1, float("nan")]]}, "platt"),
        ({"platt": {"a": 1}}, "platt"),
    ],
)
def test_what_no_score_can_be_made_by_is_refused(
    model: Path, more: dict[str, Any], about: str
) -> None:
    said = {"temperature": 1.0, **more}
    (model / "calibration.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ModelRefused, match=about):
        read_info(ModelSettings(id=str(model)))


def decode(
    calibration: Calibration, problem: str = "single_label_classification", **live: Any
) -> Any:
    info = ModelInfo("m", None, ("a", "b", "c"), problem, 512, 1.0, calibration=calibration)
    logits = Logits(np.log(np.array([[0.5, 0.3, 0.2]], np.float32)))
    return LabelDecoder(info, PostprocessorUserConfig(**live)).decode(logits, [Options()])[0]


def test_an_answer_says_that_it_abstains_and_the_live_setting_goes_first() -> None:
    plain = decode(Calibration())
    assert not {"abstained", "label_set"} & set(plain)
    unsure = decode(Calibration(abstain_below=0.6, label_set_from=0.25))
    assert unsure == plain | {"abstained": True, "label_set": ["a", "b"]}
    assert decode(Calibration(abstain_below=0.6), abstain_below=0.4)["abstained"] is False
    assert "abstained" not in decode(Calibration(abstain_below=0.6), abstain_below=0)
    assert decode(Calibration(), label_set_from=0.45)["label_set"] == ["a"]


def test_each_label_of_a_multi_label_model_has_its_line() -> None:
    lines = Calibration(platt=((1.0, 0.0), (2.0, 0.0), (1.0, 3.0)), abstain_below=0.9)
    answer = decode(lines, "multi_label_classification")
    odds = {"a": 0.5, "b": 0.3**2, "c": 0.2 * np.exp(3)}
    assert answer["scores"] == pytest.approx({k: v / (1 + v) for k, v in odds.items()}, rel=1e-5)
    assert "abstained" not in answer


def sets(n: int, slope: float) -> tuple[Labelled, Any]:
    """Rows of the labels a and b, each there as often as the sigmoid of its logit says."""
    logits = RNG.normal(0, 2, (n, 2))
    there = RNG.random((n, 2)) < 1 / (1 + np.exp(-slope * logits))
    names = ["|".join(label for label, on in zip("ab", row, strict=True) if on) for row in there]
    return Labelled([f"t{i}" for i in range(n)], names), logits


def test_labels_of_a_set_are_calibrated_each_and_rare_ones_left() -> None:
    data, logits = sets(4_000, 0.5)
    logits = np.hstack([logits, RNG.normal(0, 1, (4_000, 1))])
    scored = Scored(logits.tolist(), ("a", "b", "rare"), "multi_label_classification")
    found = calibrate_sets(data, scored, "m", "|")
    assert found.platt is not None
    assert found.platt[0] == pytest.approx((0.5, 0), abs=0.1)
    assert found.platt[2] == (1.0, 0.0)
    assert "1 labels have fewer than 5 rows" in found.notes[0]
    assert set(found.content()) == {"temperature", "platt"}
    data, logits = sets(4_000, 0.5)
    found = calibrate_sets(data, Scored(logits.tolist(), ("a", "b")), "m", "|")
    assert found.after.ece < found.before.ece / 2
    with pytest.raises(BadData, match="labels that m does not have"):
        calibrate_sets(data, Scored(logits.tolist(), ("a", "c")), "m", "|")


def test_rows_may_have_several_labels_or_none() -> None:
    said = ["b|a", "", "a", ["a", "b"], [], None] * 10
    rows = [Row({"text": f"t{i}", "label": label}, 0) for i, label in enumerate(said)]
    data = labelled(rows, "t.csv", "text", "label", "|")
    assert data.labels[:5] == ["a|b", "", "a", "a|b", ""]
    assert data.notes == ("10 of 60 rows have no label: left out.",)


@pytest.mark.usefixtures("at_once")
def test_a_multi_label_model_gets_lines_by_the_command(
    make_tiny_model: Any, tmp_path: Path
) -> None:
    directory = make_tiny_model(num_labels=2, problem_type="multi_label_classification")
    table = tmp_path / "heldout.csv"
    said = ("LABEL_0|LABEL_1", "", "LABEL_0", "LABEL_1")
    lines = ["text,label", *(f"第 {i} 条,{said[i % 4]}" for i in range(60))]
    table.write_text("\n".join(lines), encoding="utf-8")
    asked = (str(directory), "--data", str(table), "--engine", "torch", "--dtype", "float32")
    refused = run(*asked)
    assert refused.exit_code == 2
    assert "say --label-separator" in refused.output
    result = run(*asked, "--label-separator", "|")
    assert result.exit_code == 0, result.output
    info, *_ = read_info(ModelSettings(id=str(directory)))
    assert info.calibration.platt is not None
    assert len(info.calibration.platt) == 2
