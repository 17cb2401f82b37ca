"""`rayclassify finetune`: it learns, goes on after a kill, and its directory is served."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from typer.testing import CliRunner
from typer.testing import Result as CliResult

from deployments.cli import app
from deployments.local import LocalClassifier
from deployments.optimise.finetuning import Task, advice, held_out, score, targets_of
from deployments.optimise.labelled import BadData, Labelled
from deployments.optimise.training import OtherRun, Recipe, batches, train
from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION

GOOD, BAD = ("很好很满意", "质量不错"), ("太差了", "很失望不会再买")


def rows(n: int = 120) -> list[tuple[str, str]]:
    """A text a row, whose label is plain to see."""
    return [
        (f"第{i}次购买{(GOOD if i % 2 else BAD)[i // 2 % 2]}", "good" if i % 2 else "bad")
        for i in range(n)
    ]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of models so small spend their time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(
    path: Path, lines: Iterable[Sequence[Any]], head: Sequence[str] = ("text", "label")
) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *lines])
    return path


@pytest.fixture(scope="module")
def encoder(make_tiny_model: Callable[..., Path]) -> Path:
    return make_tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.1)


def run(*args: Any) -> CliResult:
    return CliRunner().invoke(app, ["finetune", *map(str, args)])


def served(directory: Path) -> LocalClassifier:
    engine = {"name": "torch", "dtype": "float32"}
    return LocalClassifier({"model": {"id": str(directory)}, "engine": engine})


QUICK = (
    "--epochs",
    8,
    "--patience",
    8,
    "--learning-rate",
    3e-3,
    "--batch-tokens",
    128,
    "--max-length",
    32,
)


# --- the command


def test_it_learns_and_the_service_loads_what_it_wrote(encoder: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "train.csv", rows())
    out = tmp_path / "mine"
    ended = run("--data", data, "--base", encoder, "--out", out, *QUICK)
    assert ended.exit_code == 0, ended.output
    with served(out) as classifier:
        answers = classifier.classify([*GOOD, *BAD])
    assert [answer["label"] for answer in answers] == ["good", "good", "bad", "bad"]
    assert {weight.dtype for weight in load_file(out / "model.safetensors").values()} == {
        np.dtype("float16")
    }
    card = (out / "README.md").read_text()
    assert "base_model" in card
    assert "macro-F1" in card
    assert not any(text in card for text, _ in rows())
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    again = run("--data", data, "--base", encoder, "--out", out, *QUICK)
    assert again.exit_code == 2
    assert "--force" in again.output


def test_a_kill_before_the_card_costs_no_training(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.optimise.card import Card

    data = write(tmp_path / "train.csv", rows(60))
    out = tmp_path / "mine"
    asked = ("--data", data, "--base", encoder, "--out", out, *QUICK, "--epochs", 1)

    def killed(self: Card, directory: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Card, "write", killed)
        assert run(*asked).exit_code != 0
    weights = (out / "model.safetensors").read_bytes()
    again = run(*asked)
    assert again.exit_code == 0, again.output
    assert "went on from where" in again.output
    assert (out / "model.safetensors").read_bytes() == weights
    assert (out / "README.md").exists()
    assert not (out / "checkpoint.pt").exists()


def test_several_labels_a_text(encoder: Path, tmp_path: Path) -> None:
    lines = [
        (f"第{i}次{'很好' if i % 2 else ''}{'很贵' if i % 3 == 0 else ''}买",
         ";".join(["nice"] * (i % 2) + ["dear"] * (i % 3 == 0)))
        for i in range(150)
    ]  # fmt: skip
    data = write(tmp_path / "train.csv", lines)
    out = tmp_path / "mine"
    ended = run(
        "--data", data, "--base", encoder, "--out", out, "--label-separator", ";",
        "--class-weights", "balanced", *QUICK, "--learning-rate", 1e-3, "--epochs", 30,
        "--patience", 30,
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    with served(out) as classifier:
        assert classifier.loaded.parts.info.problem_type == MULTI_LABEL
        scores = classifier.classify("第999次很好很贵买")["scores"]
    assert min(scores.values()) > 0.5, ended.output


def test_a_regression_answers_numbers(encoder: Path, tmp_path: Path) -> None:
    lines = [(f"第{i}次" + "好" * (i % 5), i % 5 - 2.0) for i in range(150)]
    data = write(tmp_path / "train.csv", [*lines, ("没有数字", "many"), ("无限", "inf")])
    out = tmp_path / "mine"
    ended = run(
        "--data", data, "--base", encoder, "--out", out, "--regression", *QUICK, "--epochs", 25
    )
    assert ended.exit_code == 0, ended.output
    assert "2 of 152 rows have no label" in ended.output

    with served(out) as classifier:
        assert classifier.loaded.parts.info.problem_type == REGRESSION
        few, many = (classifier.classify(text)["score"] for text in ("第7次", "第7次好好好好"))
    assert few < 0 < many


def test_pairs(encoder: Path, tmp_path: Path) -> None:
    lines = [(f"问{i}", f"第{i}个{GOOD[0] if i % 2 else BAD[0]}", str(i % 2)) for i in range(120)]
    data = write(tmp_path / "train.csv", lines, ("text", "reply", "label"))
    out = tmp_path / "mine"
    ended = run("--data", data, "--base", encoder, "--out", out, "--pair-column", "reply", *QUICK)
    assert ended.exit_code == 0, ended.output
    assert len({(out / name).stat().st_mode for name in ("config.json", "model.safetensors")}) == 1
    with served(out) as classifier:
        assert classifier.classify("问3", text_pair="第9个" + GOOD[0])["label"] == "1"


def test_lora_is_merged_into_plain_weights(demo_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    names = {"good": "positive", "bad": "negative"}
    data = write(tmp_path / "train.csv", [(text, names[label]) for text, label in rows()])
    out = tmp_path / "mine"
    asked = ("--data", data, "--base", demo_model, "--out", out, "--lora-rank", 4, "--epochs", 1)
    ended = run(*asked)
    assert ended.exit_code == 0, ended.output
    trained, of = re.findall(r"([\d,]+) of ([\d,]+) weights trained", ended.output)[0]
    assert int(trained.replace(",", "")) < int(of.replace(",", "")) / 10
    weights, before = (load_file(one / "model.safetensors") for one in (out, demo_model))
    assert weights.keys() == before.keys()
    moved = {name for name in weights if not np.array_equal(weights[name], before[name])}
    assert any("query" in name for name in moved)
    assert not any("embeddings" in name for name in moved)
    with served(out) as classifier:
        assert classifier.classify(GOOD[0])["label"] == "positive"


@pytest.mark.parametrize(
    ("lines", "options", "said"),
    [
        (rows(20), (), "30 are the least"),
        ([(text, "good") for text, _ in rows()], (), "nothing can be"),
        ([*rows(), ("只有一次", "rare")], (), "one row only ('rare')"),
        (rows(), ("--regression",), "0 texts with a label"),
        (rows(), ("--label-column", "gold"), "gold"),
        (rows(), ("--base", "no/such/directory"), "can't be trained"),
        (rows(), ("--base", "./not-there"), "there is no directory ./not-there"),
    ],
)
def test_what_is_wrong_ends_it_before_it_begins(
    encoder: Path, tmp_path: Path, lines: list[Any], options: tuple[str, ...], said: str
) -> None:
    data = write(tmp_path / "train.csv", lines)
    out = tmp_path / "mine"
    ended = run("--data", data, "--base", encoder, "--out", out, *QUICK, *options)
    assert ended.exit_code == 2, ended.output
    assert said in ended.output
    assert not out.exists()


def test_rows_of_validation_are_not_learnt(encoder: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "train.csv", rows())
    chosen = write(tmp_path / "validation.csv", rows()[:40])
    out = tmp_path / "mine"
    asked = ("--data", data, "--validation", chosen, "--base", encoder, "--out", out)
    ended = run(*asked, *QUICK, "--epochs", 1)
    assert ended.exit_code == 0, ended.output
    assert "40 of 120 texts stand in" in ended.output
    assert "80 rows to learn from, 40 to choose by" in ended.output
    write(chosen, [*rows()[:40], ("奇怪", "strange")])
    assert "'strange'" in run(*asked, "--force", *QUICK).output


# --- the loop


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))


RNG = np.random.default_rng(3)
X = torch.from_numpy(RNG.normal(size=(64, 4)).astype(np.float32))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]])
RECIPE = Recipe(epochs=5, learning_rate=0.05, batch_tokens=16, patience=5)


class Killed(Exception):
    pass


def trained(
    path: Path, kill_at: int | None = None, run: str = "one", recipe: Recipe = RECIPE
) -> Any:
    model = Line()
    seen = 0

    def loss(places: Sequence[int]) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if seen == kill_at:
            raise Killed
        value: torch.Tensor = ((model.layer(X[list(places)]) - Y[list(places)]) ** 2).mean()
        return value

    @torch.no_grad()
    def judged() -> float:
        return -float(((model.layer(X) - Y) ** 2).mean())

    outcome = train(model, [1] * 64, loss, judged, recipe, path, run)
    return model.state_dict(), outcome


@pytest.mark.parametrize("kill_at", [2, 9, 14])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    monkeypatch.setattr("deployments.optimise.training.CHECKPOINT_EVERY_S", 0.0)
    whole, unbroken = trained(tmp_path / "a.pt")
    with pytest.raises(Killed):
        trained(tmp_path / "b.pt", kill_at)
    broken, resumed = trained(tmp_path / "b.pt")
    assert resumed.resumed
    assert resumed.scores == unbroken.scores
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_no_run_goes_on_from_another_ones_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path / "a.pt")
    with pytest.raises(OtherRun, match="--force"):
        trained(tmp_path / "a.pt", run="two")


def test_it_ends_without_gain_and_keeps_the_best(tmp_path: Path) -> None:
    model, scores = Line(), iter([0.1, 0.7, 0.6, 0.5, 0.9])
    kept: list[dict[str, torch.Tensor]] = []

    def judged() -> float:
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(scores)

    recipe = Recipe(epochs=5, learning_rate=0.05, batch_tokens=16, patience=2)
    outcome = train(
        model,
        [1] * 64,
        lambda places: model.layer(X[list(places)]).square().mean(),
        judged,
        recipe,
        tmp_path / "a.pt",
        "one",
    )
    assert outcome.scores == [0.1, 0.7, 0.6, 0.5]
    assert outcome.epoch == 2
    assert all(torch.equal(kept[1][name], value) for name, value in model.state_dict().items())


def test_an_epoch_has_every_row_once_within_the_budget() -> None:
    lengths = RNG.integers(1, 60, 3_000).tolist()
    recipe = Recipe(batch_tokens=200)
    first, second = (batches(lengths, recipe, epoch) for epoch in (0, 1))
    assert sorted(i for batch in first for i in batch) == list(range(3_000))
    assert all(len(b) * max(lengths[i] for i in b) <= 200 for b in first)
    assert first != second
    assert first == batches(lengths, recipe, 0)


# --- data and scores


def test_a_tenth_of_each_label_is_held_out() -> None:
    labels = ["a"] * 100 + ["b"] * 30
    data = Labelled([str(i) for i in range(130)], labels)
    first, second = held_out(data, 0, of_each_label=True)
    assert sorted(first.texts + second.texts) == sorted(data.texts)
    assert (second.labels.count("a"), second.labels.count("b")) == (10, 3)


def test_few_and_uneven_rows_are_named() -> None:
    data = Labelled([str(i) for i in range(1_020)], ["often"] * 1_000 + ["rare"] * 20)
    said = " ".join(advice(data, data.names, Task()))
    assert "20 of 'rare'" in said
    assert "50 times" in said
    assert "balanced" not in " ".join(advice(data, data.names, Task(balanced=True)))


def test_scores_are_those_of_the_library() -> None:
    from sklearn.metrics import f1_score, r2_score

    gold = RNG.integers(0, 3, 200)
    logits = RNG.normal(size=(200, 3))
    assert score(logits, gold, Task())[1] == pytest.approx(
        f1_score(gold, logits.argmax(1), average="macro")
    )
    several = (RNG.random((200, 3)) > 0.5).astype(np.float32)
    task = Task(MULTI_LABEL, ";")
    assert score(logits, several, task)[1] == pytest.approx(
        f1_score(several, logits > 0, average="macro")
    )
    values, numbers = RNG.normal(size=(50, 1)), RNG.normal(size=50)
    assert score(values, numbers, Task(REGRESSION))[1] == pytest.approx(
        r2_score(numbers, values[:, 0])
    )


def test_labels_of_a_row_become_places() -> None:
    data = Labelled(["x", "y"], ["b;a", ""])
    assert targets_of(data, ("a", "b"), Task(MULTI_LABEL, ";")).tolist() == [[1, 1], [0, 0]]


def test_too_many_labels_are_numbers_most_likely() -> None:
    from deployments.optimise.finetuning import names_of

    data = Labelled([str(i) for i in range(1_001)], [str(i / 7) for i in range(1_001)])
    with pytest.raises(BadData, match="--regression"):
        names_of(data, Task())


def test_a_config_says_what_the_labels_are(encoder: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "train.csv", rows())
    out = tmp_path / "mine"
    assert (
        run("--data", data, "--base", encoder, "--out", out, *QUICK, "--epochs", 1).exit_code == 0
    )
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["problem_type"] == "single_label_classification"
