"""`rayclassify distill`, `prune` and `trim`: what they refuse, and killed where it hurts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from deployments.optimise.students import with_layers
from deployments.optimise.training import Diverged, Recipe, train
from deployments.optimise.vocabulary import CannotTrim, trim
from tests.unit.test_shrink import KINDS, MODEL, QUICK, config, made, run, write

NAMES = {0: "negative", 1: "positive"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def teacher(make_tiny_model: Callable[..., Path]) -> Path:
    return make_tiny_model(id2label=NAMES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return table(tmp_path / "train.csv", ["negative", "positive"])


def table(path: Path, labels: Sequence[Any], text: str = "第{}次购买很满意") -> Path:
    return write(path, [(text.format(i), labels[i % len(labels)]) for i in range(40)])


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


# --- what would be lost


@pytest.mark.parametrize("command", ["distill", "prune", "trim", "finetune"])
def test_force_does_not_remove_what_is_read(
    command: str, teacher: Path, data: Path, tmp_path: Path
) -> None:
    named = ["--base", teacher] if command == "finetune" else [teacher]
    cut = ["--layers", 1] if command in ("distill", "prune") else []
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "config.json").write_text("{}")
    shutil.copy(data, inner)
    before = sorted(path.name for path in teacher.iterdir())
    for out, table in ((teacher, data), (teacher.parent, data), (inner, inner / data.name)):
        ended = run(command, *named, *cut, "--data", table, "--out", out, "--force")
        assert ended.exit_code == 2
        assert "would be lost" in ended.output
    assert sorted(path.name for path in teacher.iterdir()) == before
    assert (inner / data.name).exists()


def test_force_replaces_models_only(teacher: Path, data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    ended = run("trim", teacher, "--data", data, "--out", mine, "--force")
    assert ended.exit_code == 2
    assert "of no model" in ended.output
    assert (mine / "thesis.txt").exists()
    ended = run("trim", teacher, "--data", data, "--out", mine / "thesis.txt")
    assert ended.exit_code == 2
    assert "is a file" in ended.output
    out = tmp_path / "out"
    assert run("trim", teacher, "--data", data, "--out", out).exit_code == 0
    (out / "calibration.json").write_text("{}")  # of the model before
    assert run("trim", teacher, "--data", data, "--out", out, "--force").exit_code == 0
    assert not (out / "calibration.json").exists()


# --- killed


def kill(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where",
    ["deployments.optimise.distilling.save", "deployments.optimise.shrunk.beside"],
    ids=["before the weights", "before the card"],
)
def test_a_run_killed_late_goes_on_without_learning_anew(
    where: str, teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    asked = ("distill", teacher, "--layers", 1, "--data", data, *QUICK, "--out")
    assert run(*asked, whole).exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(where, kill)
        ended = run(*asked, broken)
    assert ended.exit_code == 1
    assert "keeps how far it came" in ended.output
    (broken / "config.json").touch()  # transformers writes it before the weights
    ended = run(*asked, broken)
    assert ended.exit_code == 0, ended.output
    assert "epoch 1:" not in ended.output
    assert {path.name for path in broken.iterdir()} == {path.name for path in whole.iterdir()}
    one, other = weights(whole), weights(broken)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("change", ["rows in another order", "a teacher trained anew"])
def test_opinions_of_another_run_are_not_taken(
    change: str, teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, out = tmp_path / "teacher", tmp_path / "out"
    shutil.copytree(teacher, mine)
    # Of its own: a tenth held out of rows in another order would be another tenth.
    chosen = table(tmp_path / "chosen.csv", ["negative", "positive"], "第{}次退货")
    asked = ("distill", mine, "--layers", 1, "--data", data, *QUICK, "--out", out,
             "--validation", chosen)  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr("deployments.optimise.distilling.save", kill)
        assert run(*asked).exit_code == 1
    if change == "rows in another order":
        head, *lines = data.read_text().splitlines()
        data.write_text("\n".join([head, *reversed(lines)]))
    else:
        model = AutoModelForSequenceClassification.from_pretrained(mine)
        with torch.no_grad():
            model.classifier.bias += 1
        model.save_pretrained(mine)
    ended = run(*asked)
    assert ended.exit_code == 2
    assert "of a run with another model, other rows" in ended.output


def test_a_kill_while_opinions_are_written_leaves_none(
    teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: Any, **_: Any) -> None:
        with file if hasattr(file, "write") else Path(file).open("wb") as opened:
            opened.write(b"PK half of it")
        raise KeyboardInterrupt

    asked = ("distill", teacher, "--layers", 1, "--data", data, *QUICK, "--out", tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("deployments.optimise.distilling.np.savez", half)
        assert run(*asked).exit_code == 1
    assert run(*asked).exit_code == 0


def test_a_run_that_had_ended_learns_no_more_when_asked_again(tmp_path: Path) -> None:
    model, scores = torch.nn.Linear(1, 1), iter([0.1, 0.7, 0.6, 0.5, 0.9])
    recipe = Recipe(epochs=5, batch_tokens=16, patience=2)
    for _ in range(2):
        outcome = train(
            model,
            [1] * 32,
            lambda places: model(torch.ones(len(places), 1)).square().mean(),
            lambda: next(scores),
            recipe,
            tmp_path / "a.pt",
            "one",
        )
        assert outcome.scores == [0.1, 0.7, 0.6, 0.5]


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(Diverged, match=r"lower --learning-rate than 0\.5"):
        train(
            model,
            [1] * 8,
            lambda _: model(torch.ones(1, 1)).sum() * float("nan"),
            lambda: 0.0,
            Recipe(learning_rate=0.5),
            tmp_path / "a.pt",
            "one",
        )


# --- models of every kind


def test_more_layers_than_there_are_is_said(teacher: Path, data: Path, tmp_path: Path) -> None:
    for command in ("distill", "prune"):
        ended = run(command, teacher, "--layers", 3, "--data", data, "--out", tmp_path / "out")
        assert ended.exit_code == 2
        assert "has 2 layers; 3 are asked for" in ended.output


def test_an_encoder_without_a_head_is_no_teacher(teacher: Path, data: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    BertModel.from_pretrained(teacher).save_pretrained(encoder)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(encoder)
    for command, *options in (("distill", "--layers", 1), ("prune", "--layers", 1), ("trim",)):
        ended = run(command, encoder, *options, "--data", data, "--out", tmp_path / "out")
        assert ended.exit_code == 2
        assert "would be random" in ended.output
        assert not (tmp_path / "out").exists()


def test_a_teacher_may_read_less_than_its_student(
    make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    teacher = make_tiny_model(id2label=NAMES, max_position_embeddings=16)
    data = table(tmp_path / "long.csv", ["negative", "positive"], "第{}次" + "很好" * 20)
    out = tmp_path / "out"
    ended = run("distill", teacher, "--student", make_tiny_model(), "--data", data, "--out", out,
                *QUICK)  # fmt: skip
    assert ended.exit_code == 0, ended.output


def test_a_new_head_is_seeded(
    teacher: Path, make_tiny_model: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    student = make_tiny_model(num_labels=3)
    asked = ("distill", teacher, "--student", student, "--data", data, *QUICK, "--epochs", 1)
    for name in "ab":
        torch.seed()
        assert run(*asked, "--out", tmp_path / name).exit_code == 0
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("more", "labels", "options"),
    [
        ({"problem_type": "regression", "id2label": {0: "value"}}, [0.5, 1.5, -2, 3.25], ()),
        (
            {"problem_type": "multi_label_classification", "id2label": {0: "a", 1: "b", 2: "c"}},
            ["a;b", "b", "", "a;c"],
            ("--label-separator", ";"),
        ),
    ],
    ids=["regression", "several labels"],
)
def test_every_task_can_be_taught_and_pruned(
    more: dict[str, Any],
    labels: list[Any],
    options: tuple[str, ...],
    make_tiny_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    teacher, data = make_tiny_model(**more), table(tmp_path / "t.csv", labels)
    for command, *cut in (("distill", "--layers", 1), ("prune", "--ffn", 0.5)):
        out = tmp_path / command
        ended = run(command, teacher, *cut, "--data", data, *options, "--out", out, *QUICK)
        assert ended.exit_code == 0, ended.output
        assert config(out)["problem_type"] == more["problem_type"]
        assert list(config(out)["id2label"].values()) == list(more["id2label"].values())


def test_a_student_of_a_class_without_token_types(
    teacher: Path, data: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = made(DistilBertForSequenceClassification, DistilBertConfig, dim=32, n_heads=2,
                 n_layers=1, hidden_dim=48, vocab_size=len(tokenizer))  # fmt: skip
    model.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    ended = run("distill", teacher, "--student", tmp_path / "student", "--data", data, *QUICK,
                "--out", tmp_path / "out")  # fmt: skip
    assert ended.exit_code == 0, ended.output


def test_layers_keep_their_kind_when_they_are_read_again(tmp_path: Path) -> None:
    model = made(ModernBertForSequenceClassification, ModernBertConfig, pad_token_id=0,
                 bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
                 local_attention=4, num_hidden_layers=6)  # fmt: skip
    short = with_layers(model, [0, 3, 5])  # of 3 layers the first sees all tokens
    short.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.arange(3, 40)[None]
    assert torch.allclose(again(ids).logits, short(ids).logits, atol=1e-6)


# --- vocabularies


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trimming_keeps_type_and_calibration(
    dtype: torch.dtype, teacher: Path, data: Path, tmp_path: Path
) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(teacher, mine)
    AutoModelForSequenceClassification.from_pretrained(mine, dtype=dtype).save_pretrained(mine)
    (mine / "calibration.json").write_text('{"temperature": 1.5}')
    ended = run("trim", mine, "--data", data, "--out", out)
    assert ended.exit_code == 0, ended.output
    before, after = weights(mine), weights(out)
    assert {value.dtype for value in after.values()} == {dtype}
    name = "bert.embeddings.word_embeddings.weight"
    assert all(torch.equal(before[one], after[one]) for one in before if one != name)
    assert json.loads((out / "calibration.json").read_text()) == {"temperature": 1.5}
    card = (out / "README.md").read_text()
    for said in (
        f"| tokens | {len(after[name]):,} |",
        f"| tokens, of the original | {len(before[name]):,} |",
        "of 4 texts held out, with the same tokens",
        "agreement with the original on them",
    ):
        assert said in card


def test_a_padding_id_in_the_file_moves_too() -> None:
    plain = Tokenizer(models.WordPiece({"a": 0, "ab": 1, "<pad>": 2, "b": 3}, unk_token="<pad>"))  # type: ignore[call-arg]
    plain.add_special_tokens(["<pad>"])
    plain.enable_padding(pad_id=2, pad_token="<pad>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>")
    tokenizer._tokenizer.enable_padding(pad_id=2, pad_token="<pad>")
    found = trim(MODEL, tokenizer, ["a"])
    assert found.kept == (0, 2, 3)
    assert found.tokenizer.pad_token_id == 1
    assert found.tokenizer.backend_tokenizer.padding["pad_id"] == 1
    assert found.model.config.vocab_size == 3


def test_positions_that_hang_on_the_padding_are_not_moved() -> None:
    model = made(RobertaForSequenceClassification, RobertaConfig, pad_token_id=2)
    plain = Tokenizer(models.WordPiece({"ab": 0, "a": 1, "<pad>": 2, "b": 3}, unk_token="<pad>"))  # type: ignore[call-arg]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>")
    with pytest.raises(CannotTrim, match="positions"):
        trim(model, tokenizer, ["a"])


def test_marks_at_the_ends_of_words_are_refused() -> None:
    bpe = models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>")
    with pytest.raises(CannotTrim, match="ends of words"):
        trim(MODEL, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(bpe)), ["a"])


def test_what_an_unknown_character_costs_stays() -> None:
    tokenizer = KINDS["Unigram"]
    content = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    least = min(range(len(content)), key=lambda i: content[i][1])
    assert least in trim(MODEL, tokenizer, ["low"]).kept
