"""What people do to `rayclassify finetune` without meaning to: nothing is lost, nothing answers
wrongly, and each fault is told with its cure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from deployments.optimise.bases import BadBase, head_of, loaded, ordered_as
from deployments.optimise.figures import figures_of, never_given
from deployments.optimise.finetuning import Data, Task, finetune, held_out, names_of
from deployments.optimise.labelled import Labelled, sets_of
from deployments.optimise.training import Diverged, Recipe, batches, train
from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tests.unit.test_finetune import QUICK, rows, run, served, write

GOOD, BAD = "很好很满意", "太差了"
FILES = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(make_tiny_model: Callable[..., Path]) -> Path:
    return make_tiny_model(hidden_dropout_prob=0.0)


@pytest.fixture
def asked(encoder: Path, tmp_path: Path) -> tuple[Any, ...]:
    data = write(tmp_path / "train.csv", rows(60))
    return ("--data", data, "--base", encoder, "--out", tmp_path / "mine", *QUICK, "--epochs", 1)


# --- nothing is lost


@pytest.mark.parametrize("wrong", [("--base", "no/such"), ("--device", "cuda:99")])
def test_force_keeps_the_model_until_there_is_another(
    asked: tuple[Any, ...], tmp_path: Path, wrong: tuple[str, str]
) -> None:
    out = tmp_path / "mine"
    assert run(*asked).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(*asked, "--force", *wrong).exit_code != 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_force_leaves_nothing_of_the_model_that_was_there(
    asked: tuple[Any, ...], tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    assert run(*asked).exit_code == 0
    (out / "calibration.json").write_text("{}")
    assert run(*asked, "--force").exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == FILES


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("name", ["checkpoint.pt", "README.md"])
def test_files_of_other_work_stay(
    asked: tuple[Any, ...], tmp_path: Path, name: str, force: tuple[str, ...]
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / name).write_text("mine")
    (out / "thesis.txt").write_text("mine")
    ended = run(*asked, *force)
    assert ended.exit_code == 2
    assert "another" in ended.output
    assert {path.read_text() for path in out.iterdir()} == {"mine"}


def test_a_checkpoint_that_cannot_be_read(asked: tuple[Any, ...], tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "checkpoint.pt").write_text("half of it")
    (out / "checkpoint.partial").write_text("half of it")
    ended = run(*asked)
    assert ended.exit_code == 2
    assert "--force" in ended.output
    assert run(*asked, "--force").exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == FILES


KILLED = """
import sys
import torch
import deployments.optimise.training as training
from deployments.cli import app
torch.set_num_threads(1)
training.CHECKPOINT_EVERY_S = 0
training._SHARE_OF_TIME = 1e9
app()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9")
def test_the_same_command_goes_on_after_kill_9_with_force_too(
    asked: tuple[Any, ...], tmp_path: Path
) -> None:
    """A process is killed in its training, by the system; the weights are an unbroken run's."""
    more = (*asked, "--epochs", "20", "--patience", "20", "--force")
    assert run(*more).exit_code == 0
    out = tmp_path / "mine"
    unbroken = (out / "model.safetensors").read_bytes()
    # Over the model that it replaces, which stays until then.
    command = [sys.executable, "-c", KILLED, "finetune", *map(str, more)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ) as process:
        ends = time.monotonic() + 60
        while not (out / "checkpoint.pt").exists() and process.poll() is None:
            assert time.monotonic() < ends
            time.sleep(0.005)
        process.kill()
        said = process.communicate()[1].decode()
    assert process.returncode == -signal.SIGKILL, said
    assert (out / "model.safetensors").read_bytes() == unbroken
    (out / "model.safetensors").write_bytes(b"")
    again = run(*more)
    assert again.exit_code == 0, again.output
    assert "went on from where" in again.output
    assert (out / "model.safetensors").read_bytes() == unbroken


# --- nothing answers wrongly


@pytest.mark.parametrize(("low", "step"), [(4_000, 500), (2_020, 0.01), (-3e6, 1e6)])
def test_a_regression_answers_numbers_of_any_scale(
    encoder: Path, tmp_path: Path, low: float, step: float
) -> None:
    """In 16 bits where they tell such numbers apart; in 32 where they don't."""
    lines = [(f"第{i}次" + "好" * (i % 5), low + step * (i % 5)) for i in range(150)]
    data = write(tmp_path / "train.csv", lines)
    out = tmp_path / "mine"
    asked = ("--data", data, "--base", encoder, "--out", out, "--regression", *QUICK)
    ended = run(*asked, "--epochs", 15, "--patience", 15)
    assert ended.exit_code == 0, ended.output
    assert "Pearson's r" in ended.output
    with served(out) as classifier:
        few, many = (classifier.classify(text)["score"] for text in ("第7次", "第7次好好好好"))
    assert abs(few - low) < step
    assert abs(many - low - 4 * step) < step
    assert ("stay in 32 bits" in ended.output) == (low != 4_000)


def test_a_regression_goes_on_in_its_own_numbers(encoder: Path, tmp_path: Path) -> None:
    """A base that answers such numbers already is not thrown back."""
    texts = [f"第{i}次" + "好" * (i % 5) for i in range(100)]
    numbers = Labelled(texts, [repr(700.0 + 10 * (i % 5)) for i in range(100)])
    data = Data(numbers, numbers, ("value",))
    recipe = Recipe(epochs=12, patience=12, learning_rate=3e-3, batch_tokens=128, max_length=32)
    task = Task(REGRESSION)
    first = finetune(str(encoder), data, task, recipe, tmp_path / "one", half=False)
    still = Recipe(epochs=1, learning_rate=1e-7, max_length=32)
    second = finetune(str(tmp_path / "one"), data, task, still, tmp_path / "two", half=False)
    assert np.allclose(first.logits, second.logits, atol=0.1)


def test_the_base_keeps_its_labels_order(make_tiny_model: Callable[..., Path]) -> None:
    base = make_tiny_model(id2label={0: "good", 1: "bad"}, label2id={"good": 0, "bad": 1})
    labels = ordered_as(str(base), ("bad", "good"))
    assert labels == ("good", "bad")
    before = AutoModelForSequenceClassification.from_pretrained(base)
    _, model, new_head = loaded(str(base), labels, SINGLE_LABEL)
    assert not new_head
    assert torch.equal(head_of(model).weight, head_of(before).weight)  # type: ignore[union-attr]
    # Two labels as well, and others: what the head knows is of no use.
    assert ordered_as(str(base), ("a", "b")) == ("a", "b")
    _, model, new_head = loaded(str(base), ("a", "b"), SINGLE_LABEL)
    assert new_head
    assert not torch.equal(head_of(model).weight, head_of(before).weight)  # type: ignore[union-attr]
    assert model.config.id2label == {0: "a", 1: "b"}


def test_labels_that_are_numbers_stand_in_their_order() -> None:
    data = Labelled([str(i) for i in range(24)], [str(i % 12) for i in range(24)])
    assert names_of(data, Task()) == tuple(map(str, range(12)))


def test_the_last_row_of_a_label_is_learnt_from() -> None:
    labels = [";".join(["often"] * (i % 2) + [f"rare{i}"] * (i % 7 == 0)) for i in range(200)]
    data = Labelled([str(i) for i in range(200)], labels)
    for seed in range(20):
        first, second = held_out(data, seed, of_each_label=False, separator=";")
        assert len(second) == 20
        assert set().union(*sets_of(second, ";")) <= set().union(*sets_of(first, ";"))
    first, second = held_out(data, 0, of_each_label=False)
    assert sorted(first.texts + second.texts) == sorted(data.texts)


def test_one_label_or_none(encoder: Path, tmp_path: Path) -> None:
    lines = [(f"第{i}次{GOOD if i % 2 else BAD}", "nice" if i % 2 else "") for i in range(150)]
    data = write(tmp_path / "train.csv", lines)
    out = tmp_path / "mine"
    ended = run("--data", data, "--base", encoder, "--out", out, "--label-separator", ";", *QUICK)
    assert ended.exit_code == 0, ended.output
    with served(out) as classifier:
        assert classifier.loaded.parts.info.problem_type == MULTI_LABEL
        scores = [classifier.classify(f"第7次{text}")["scores"]["nice"] for text in (GOOD, BAD)]
    assert scores[0] > 0.5 > scores[1]


# --- bases


def broken(directory: Path, how: str) -> None:
    if how == "truncated":
        weights = directory / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-5_000])
    elif how == "no tokenizer":
        for path in directory.glob("tokenizer*"):
            path.unlink()
    elif how == "no padding token":
        config = directory / "tokenizer_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token": None}))
    elif how == "no JSON":
        (directory / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("how", "config", "said"),
    [
        ("truncated", {}, "deserializing"),
        ("no tokenizer", {}, "100% of the texts' tokens are unknown"),
        ("no padding token", {}, "no padding token"),
        ("no JSON", {}, "not a valid JSON"),
        ("small", {"vocab_size": 50}, "embeddings for 50"),
    ],
)
def test_a_base_that_cannot_read_the_texts(
    make_tiny_model: Callable[..., Path],
    asked: tuple[Any, ...],
    tmp_path: Path,
    how: str,
    config: dict[str, int],
    said: str,
) -> None:
    base = make_tiny_model(**config)
    broken(base, how)
    ended = run(*asked, "--base", base)
    assert ended.exit_code == 2, ended.output
    assert said in ended.output
    assert not (tmp_path / "mine").exists()


def test_a_directory_that_cannot_be_made(asked: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run(*asked, "--out", tmp_path / "file" / "mine")
    assert ended.exit_code == 1
    assert "can't be written" in ended.output


def test_a_base_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(BadBase, match="can't be trained"):
        loaded(str(tmp_path), ("a", "b"), SINGLE_LABEL)


# --- what was learnt


def test_labels_that_were_not_learnt_are_named(asked: tuple[Any, ...]) -> None:
    ended = run(*asked, "--learning-rate", 1e-7)
    assert ended.exit_code == 0, ended.output
    assert "no text of validation gets" in ended.output
    assert "'good'" in ended.output or "'bad'" in ended.output


def test_figures_have_intervals() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 400)
    logits = np.stack([1.0 - gold, gold.astype(float)], 1)
    logits[:40] = logits[:40, ::-1]
    figures = dict(figures_of(logits, gold, SINGLE_LABEL, ("a", "b")))
    assert figures["accuracy"].startswith("0.900 [0.8")
    assert len(figures) == 4
    assert never_given(logits, SINGLE_LABEL, ("a", "b")) == []
    assert never_given(np.array([[1.0, 0.0]] * 5), SINGLE_LABEL, ("a", "b")) == ["b"]

    numbers = rng.normal(size=400)
    values = (numbers + rng.normal(size=400))[:, None]
    from scipy.stats import pearsonr

    interval = pearsonr(values[:, 0], numbers).confidence_interval(0.95)
    figures = dict(figures_of(values, numbers, REGRESSION, ("value",)))
    assert figures["Pearson's r"].endswith(f"[{interval.low:.3f}, {interval.high:.3f}]")

    several = (rng.random((400, 2)) > 0.5).astype(np.float32)
    figures = dict(figures_of(several - 0.5, several, MULTI_LABEL, ("a", "b")))
    assert figures["texts with exactly their labels"] == "1.000"
    assert all(value == "1.000 [1.000, 1.000]" for name, value in figures.items() if "F1" in name)


def test_rows_are_cut_only_beyond_the_limit(encoder: Path, tmp_path: Path) -> None:
    """[CLS], 6 characters, [SEP] are 8 tokens: whole; a character more is cut."""
    texts = ["好" * 6] * 5 + ["好" * 7] * 3 + ["好"] * 12
    data = Labelled(texts, ["a", "b"] * 10)
    parts = Data(data, data, ("a", "b"))
    found = finetune(str(encoder), parts, Task(), Recipe(epochs=1, max_length=8), tmp_path / "mine")
    assert found.n_cut == 3


# --- the loop


@pytest.mark.parametrize(("n_rows", "n_batches"), [(30, 4), (200, 25), (600, 50)])
def test_few_rows_make_batches_enough_to_learn_by(n_rows: int, n_batches: int) -> None:
    found = batches([10] * n_rows, Recipe(), 0)
    assert sorted(i for batch in found for i in batch) == list(range(n_rows))
    assert len(found) == n_batches


def test_many_rows_fill_the_budget() -> None:
    found = batches([10] * 8_000, Recipe(batch_tokens=1_024), 0)
    assert max(map(len, found)) == 102


def loop(tmp_path: Path, scores: list[float], loss: float = 1.0, patience: int = 1) -> Any:
    model = nn.Linear(1, 1)
    told = iter(scores)

    def lost(places: Any) -> torch.Tensor:
        value: torch.Tensor = model.weight.square().sum() * loss
        return value

    recipe = Recipe(epochs=len(scores), patience=patience)
    return train(model, [1] * 8, lost, lambda: next(told), recipe, tmp_path / "a.pt", "one")


def test_it_does_not_end_before_it_has_learnt_anything(tmp_path: Path) -> None:
    outcome = loop(tmp_path, [0.0, 0.0, 0.0, 0.6, 0.5, 0.9])
    assert outcome.scores == [0.0, 0.0, 0.0, 0.6, 0.5]
    assert outcome.epoch == 4


@pytest.mark.parametrize(
    ("scores", "loss"), [([float("nan")], 1.0), ([0.5], float("inf")), ([0.5], 1e38)]
)
def test_what_is_no_number_ends_it(tmp_path: Path, scores: list[float], loss: float) -> None:
    """Of the last, the loss alone is finite: its gradient's norm is not."""
    torch.manual_seed(0)
    with pytest.raises(Diverged, match="--learning-rate"):
        loop(tmp_path, scores, loss)
    assert not (tmp_path / "a.pt").exists()
