"""`rayclassify evaluate` of regressions and of models that give several labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from typer.testing import CliRunner
from typer.testing import Result as CliResult

from deployments.cli import app
from deployments.local import LocalClassifier
from deployments.optimise import baseline
from deployments.optimise.labelled import Labelled
from deployments.optimise.number_statistics import number_differences, number_scores
from deployments.optimise.problems import LabelSets, Numbers
from deployments.optimise.set_statistics import set_differences, set_scores

RNG = np.random.default_rng(5)
FLOAT32 = ("--engine", "torch", "--dtype", "float32")


def run(*args: str) -> CliResult:
    return CliRunner().invoke(app, ["evaluate", *args])


def write(path: Path, rows: list[tuple[str, object]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return str(path)


# --- numbers


def rated(n: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, so that ranks are shared, and predictions that err so far."""
    gold = RNG.integers(-4, 5, n).astype(float)
    return gold, np.round(gold + RNG.normal(0.3, error, n), 1)


def test_figures_of_numbers_are_those_of_scipy_and_scikit_learn() -> None:
    gold, told = rated(200, 1.5)
    found = number_scores(gold, told)
    assert found.pearson.value == pytest.approx(stats.pearsonr(gold, told)[0])
    assert found.spearman.value == pytest.approx(stats.spearmanr(gold, told)[0])
    assert found.r2.value == pytest.approx(metrics.r2_score(gold, told))
    assert found.mae.value == pytest.approx(metrics.mean_absolute_error(gold, told))


def test_intervals_of_numbers_are_those_of_a_bootstrap_over_rows() -> None:
    gold, told = rated(150, 1.5)
    draws = RNG.integers(0, 150, (600, 150))
    slow = {
        "pearson": [stats.pearsonr(gold[one], told[one])[0] for one in draws],
        "spearman": [stats.spearmanr(gold[one], told[one])[0] for one in draws],
        "r2": [metrics.r2_score(gold[one], told[one]) for one in draws],
        "mae": [metrics.mean_absolute_error(gold[one], told[one]) for one in draws],
    }
    found = number_scores(gold, told)
    for name, values in slow.items():
        one = getattr(found, name)
        assert [one.low, one.high] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.04)


def test_a_model_that_always_says_the_same_explains_nothing() -> None:
    gold, _ = rated(60, 1.0)
    found = number_scores(gold, np.full(60, gold.mean()))
    assert (found.pearson.value, found.spearman.value) == (0, 0)
    assert found.r2.value == pytest.approx(0)


def test_of_two_regressions_the_nearer_one_is_told() -> None:
    gold, good = rated(300, 0.5)
    bad = gold + RNG.normal(0, 3, 300)
    (gap,) = number_differences(gold, {"good": good, "bad": bad})
    assert gap.pearson.low > 0 > gap.mae.high
    nearer = int((np.abs(good - gold) < np.abs(bad - gold)).sum())
    assert (gap.only_first_right, gap.only_second_right) == (nearer, 300 - nearer)
    assert gap.p_value == pytest.approx(stats.binomtest(nearer, 300).pvalue)


def test_a_text_without_an_answer_counts_as_the_mean() -> None:
    data = Labelled([f"text {i}" for i in range(4)], ["1.0", "2.0", "3.0", "6.0"])
    assert Numbers(data).array([1.5, None, 3, 4]).tolist() == [1.5, 3.0, 3.0, 4.0]


# --- sets of labels


def sets(n: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    gold = (RNG.random((n, 4)) < (0.6, 0.3, 0.1, 0.0)).astype(int)
    wrong = (RNG.random((n, 4)) < 0.3).astype(int)
    return gold, np.where(RNG.random((n, 4)) < right, gold, wrong)


def test_figures_of_sets_are_those_of_scikit_learn() -> None:
    gold, told = sets(300, 0.8)
    found = set_scores(gold, told)
    by_label = metrics.precision_recall_fscore_support(
        gold[:, :-1], told[:, :-1], average=None, zero_division=0
    )
    for ours, theirs in zip((found.precision, found.recall, found.f1), by_label, strict=False):
        assert [one.value for one in ours] == pytest.approx(theirs)
    assert found.support == by_label[3].tolist()
    assert found.macro_f1.value == pytest.approx(np.mean(by_label[2]))
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(gold, told))
    micro = metrics.f1_score(gold, told, average="micro", zero_division=0)
    assert found.micro_f1.value == pytest.approx(micro)


def test_intervals_of_sets_are_those_of_a_bootstrap_over_rows() -> None:
    gold, told = sets(200, 0.8)
    draws = RNG.integers(0, 200, (600, 200))
    micro = [metrics.f1_score(gold[i], told[i], average="micro") for i in draws]
    exact = [metrics.accuracy_score(gold[i], told[i]) for i in draws]
    found = set_scores(gold, told)
    for one, values in ((found.micro_f1, micro), (found.accuracy, exact)):
        assert [one.low, one.high] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.03)


def test_the_difference_of_sets_is_paired() -> None:
    gold, one = sets(300, 0.8)
    other = np.where(RNG.random((300, 1)) < 0.9, one, 1 - gold)
    (gap,) = set_differences(gold, {"one": one, "other": other})
    alone = [set_scores(gold, told) for told in (one, other)]
    assert gap.macro_f1.value == pytest.approx(alone[0].macro_f1.value - alone[1].macro_f1.value)
    assert gap.accuracy.value == pytest.approx(alone[0].accuracy.value - alone[1].accuracy.value)
    right = [(told == gold).all(1) for told in (one, other)]
    assert gap.only_first_right == int((right[0] & ~right[1]).sum())
    assert gap.only_second_right == int((right[1] & ~right[0]).sum())


def test_labels_that_no_row_has_count_against_the_model_and_no_answer_is_none() -> None:
    problem = LabelSets(Labelled(["a", "b", "c"], ["x;y", "", "y"]), ";")
    assert problem.names == ["x", "y"]
    assert problem.array([["x", "strange"], None, []]).tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]


# --- the command


TEXTS = [f"{word} {i}" for i in range(30) for word in ("质量很好", "物流快", "太差了")]


def answers_of(model: Path) -> list[dict[str, object]]:
    settings = {"model": {"id": str(model)}, "engine": {"name": "torch", "dtype": "float32"}}
    with LocalClassifier(settings) as classifier:
        return classifier.classify(TEXTS)  # type: ignore[return-value]


@pytest.mark.usefixtures("at_once")
def test_a_regression_is_compared_with_n_grams(
    make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_tiny_model(num_labels=1, problem_type="regression", initializer_range=0.5)
    said = [float(one["score"]) for one in answers_of(model)]  # type: ignore[arg-type]
    rows = [(text, 2 * value + 1) for text, value in zip(TEXTS, said, strict=True)]
    table, page = write(tmp_path / "rated.csv", rows), tmp_path / "report.html"
    done = run(
        str(model), "--data", table, "--regression", *FLOAT32, "--json", "--report", str(page)
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    own, rival = told["models"]
    assert told["problem_type"] == "regression"
    # A line through the model's own numbers: it orders them as they are, and is off by a constant.
    assert own["scores"]["pearson"]["value"] == pytest.approx(1, abs=1e-3)
    assert own["scores"]["spearman"]["value"] > 0.99
    assert own["scores"]["mae"]["value"] == pytest.approx(
        np.mean(np.abs(np.array(said) + 1)), abs=1e-3
    )
    assert rival["name"] == baseline.NAME
    (gap,) = told["differences"]
    assert gap["only_first_right"] + gap["only_second_right"] == len(TEXTS)
    html = page.read_text(encoding="utf-8")
    assert "Pearson&#x27;s r" in html
    assert "sign test" in html
    shown = run(str(model), "--data", table, "--regression", *FLOAT32, "--no-baseline")
    assert "mean absolute error" in shown.stdout
    assert "has the best Pearson's r" in shown.stdout


@pytest.mark.usefixtures("at_once")
def test_a_model_of_several_labels_is_compared_with_n_grams(
    make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    names = {0: "good", 1: "fast", 2: "bad"}
    model = make_tiny_model(
        num_labels=3,
        problem_type="multi_label_classification",
        id2label=names,
        initializer_range=1.0,
    )
    said = [sorted(one["labels"]) for one in answers_of(model)]  # type: ignore[call-overload]
    assert len({*map(tuple, said)}) > 1
    # The first row lacks what the model says, or has what it does not.
    said[0] = sorted({*names.values()} ^ {*said[0]})
    rows = [(text, ";".join(labels)) for text, labels in zip(TEXTS, said, strict=True)]
    table = write(tmp_path / "tagged.csv", rows)
    done = run(str(model), "--data", table, "--label-separator", ";", *FLOAT32, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    own, rival = told["models"]
    assert told["problem_type"] == "multi_label_classification"
    assert own["scores"]["accuracy"]["value"] == pytest.approx(1 - 1 / len(TEXTS))
    assert own["scores"]["micro_f1"]["value"] < 1
    assert sum(own["scores"]["support"]) == sum(map(len, said))
    assert rival["scores"]["micro_f1"]["value"] > 0
    shown = run(str(model), "--data", table, "--label-separator", ";", *FLOAT32, "--no-baseline")
    assert "all labels right" in shown.stdout


@pytest.mark.usefixtures("at_once")
def test_a_model_of_another_problem_is_named_with_the_option_that_it_needs(
    make_tiny_model: Callable[..., Path], demo_model: Path, tmp_path: Path
) -> None:
    table = write(tmp_path / "rated.csv", [(text, i % 7) for i, text in enumerate(TEXTS)])
    rating = make_tiny_model(num_labels=1, problem_type="regression")
    told = run(str(rating), "--data", table, "--no-baseline", *FLOAT32)
    assert told.exit_code == 1
    assert "it is a regression model; here only single_label_classification" in told.output
    assert "Give --regression to compare such models." in told.output
    told = run(str(demo_model), "--data", table, "--regression", "--no-baseline", *FLOAT32)
    assert "Leave --label-separator and --regression out" in told.output
    told = run(str(rating), "--data", table, "--regression", "--min-f1", "0.5")
    assert told.exit_code == 2
    assert "numbers have no labels and no F1" in told.output
    same = write(tmp_path / "same.csv", [(text, 1.5) for text in TEXTS])
    told = run(str(rating), "--data", same, "--regression")
    assert told.exit_code == 2
    assert "have the label '1.5'" in told.output
