"""`rayclassify distill`, `prune` and `trim`: smaller models, and what they keep."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from typer.testing import CliRunner
from typer.testing import Result as CliResult

from deployments.cli import app
from deployments.cli.shrinking import Job
from deployments.local import LocalClassifier
from deployments.optimise.students import (
    CannotShrink,
    evenly,
    feed_forwards,
    importances,
    with_layers,
    with_width,
)
from deployments.optimise.trimming import Trim
from deployments.optimise.vocabulary import CannotTrim, changed, trim

GOOD, BAD = ("很好很满意", "质量不错"), ("太差了", "很失望不会再买")
SHORT = ("--epochs", 2, "--batch-tokens", 256, "--max-length", 32)
QUICK = (*SHORT, "--no-speeds")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of models so small spend their time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write(path: Path, lines: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *lines])
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        (f"第{i}次购买{(GOOD if i % 2 else BAD)[i // 2 % 2]}", "positive" if i % 2 else "negative")
        for i in range(80)
    ]
    return write(tmp_path_factory.mktemp("data") / "train.csv", lines)


def run(*args: Any) -> CliResult:
    return CliRunner().invoke(app, [*map(str, args)])


def served(directory: Path) -> LocalClassifier:
    engine = {"name": "torch", "dtype": "float32"}
    return LocalClassifier({"model": {"id": str(directory)}, "engine": engine})


def config(directory: Path) -> Any:
    return json.loads((directory / "config.json").read_text())


# --- the commands, on the demo model


def test_a_student_of_one_layer_answers_as_its_teacher(
    demo_model: Path, data: Path, tmp_path: Path
) -> None:
    more = write(tmp_path / "more.csv", [(f"{text}吗", "") for text in (*GOOD, *BAD)])
    out = tmp_path / "student"
    asked = ("distill", demo_model, "--layers", 1, "--data", data, "--out", out)
    ended = run(*asked, "--unlabelled", more, *QUICK)
    assert ended.exit_code == 0, ended.output
    assert "72 rows to learn from, 4 more texts, 8 rows to choose by" in ended.output
    assert config(out)["num_hidden_layers"] == 1
    with served(out) as classifier:
        answers = classifier.classify([*GOOD, *BAD])
    assert [one["label"] for one in answers] == ["positive"] * 2 + ["negative"] * 2
    card = (out / "README.md").read_text()
    for said in ("agreement with the original", "weights on disk", "layers 0 of the"):
        assert said in card
    assert not {"checkpoint.pt", "teacher.npz"} & {path.name for path in out.iterdir()}
    assert run(*asked, *SHORT).exit_code == 2  # it is there


def test_a_pruned_model_is_an_ordinary_narrower_one(
    demo_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pruned"
    ended = run(
        "prune", demo_model, "--ffn", 0.5, "--layers", 2, "--data", data, "--out", out, *QUICK,
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    assert (config(out)["num_hidden_layers"], config(out)["intermediate_size"]) == (2, 256)
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert model.bert.encoder.layer[1].intermediate.dense.weight.shape == (256, 256)
    with served(out) as classifier:
        assert classifier.classify(GOOD[0])["label"] == "positive"


def test_a_trimmed_model_answers_known_texts_as_before(
    demo_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "trimmed"
    ended = run("trim", demo_model, "--data", data, "--out", out)
    assert ended.exit_code == 0, ended.output
    assert config(out)["vocab_size"] < config(demo_model)["vocab_size"]
    texts = [row["text"] for row in csv.DictReader(data.open(encoding="utf-8"))]
    with served(demo_model) as before, served(out) as after:
        for one, other in zip(before.classify(texts), after.classify(texts), strict=True):
            assert other["tokens"] == one["tokens"]
            assert other["scores"] == pytest.approx(one["scores"], abs=2e-3)


@pytest.mark.parametrize(("agreement", "warns"), [(0.73, True), (0.995, False), (None, False)])
def test_a_cut_that_changes_labels_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], agreement: float | None, warns: bool
) -> None:
    out = tmp_path / "made"
    job = Job(out, False, "t.csv", None, "text", "label", None, None, "utf-8", ("m",))
    out.mkdir()
    job.end_of_trim("m", Trim(("a", "b"), (10, 5), (10, 5), 30, 20, agreement, 1.0), ["x", "y"])
    assert ("keep their label" in " ".join(capsys.readouterr().err.split())) is warns


def test_rare_tokens_go_where_a_count_is_asked(demo_model: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(demo_model)
    tokenizer = AutoTokenizer.from_pretrained(demo_model)
    often, once = "服务很好", "thinkpad windows"
    texts = [often, often, once]
    all_of_them, common = (trim(model, tokenizer, texts, n) for n in (1, 2))
    assert set(common.kept) < set(all_of_them.kept)
    assert changed(tokenizer, all_of_them, texts) == []
    assert changed(tokenizer, common, texts) == [once]


def test_a_student_of_another_width_learns_through_a_map(
    demo_model: Path, data: Path, make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    student, out = make_tiny_model(), tmp_path / "student"
    ended = run("distill", demo_model, "--student", student, "--data", data, "--out", out, *QUICK)
    assert ended.exit_code == 0, ended.output
    assert config(out)["hidden_size"] == 32
    assert set(config(out)["id2label"].values()) == {"negative", "positive"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("distill",), "--layers or --student"),
        (("prune",), "nothing is cut"),
        (("distill", "--layers", 1, "--label-separator", ";"), "leave out --label-separator"),
        (("distill", "--student", "no/such/model"), "can't be"),
    ],
)
def test_what_is_wrong_is_said(
    demo_model: Path, data: Path, tmp_path: Path, args: tuple[Any, ...], said: str
) -> None:
    command, *options = args
    ended = run(command, demo_model, *options, "--data", data, "--out", tmp_path / "out")
    assert ended.exit_code == 2
    assert said in ended.output


def test_labels_that_the_model_lacks_end_it(demo_model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", [(f"{i}", "good" if i % 2 else "bad") for i in range(60)])
    ended = run("distill", demo_model, "--layers", 1, "--data", data, "--out", tmp_path / "out")
    assert ended.exit_code == 2
    assert "'good'" in ended.output
    assert not (tmp_path / "out").exists()


# --- students

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "vocab_size": 50}


def made(model_class: Any, config_class: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    return model_class(config_class(**{**SMALL, "num_hidden_layers": 4, **more})).eval()


def students_of() -> list[Any]:
    return [
        made(BertForSequenceClassification, BertConfig),
        made(RobertaForSequenceClassification, RobertaConfig, pad_token_id=1),
        made(DistilBertForSequenceClassification, DistilBertConfig, dim=32, n_heads=2, n_layers=4,
             hidden_dim=48),
    ]  # fmt: skip


@pytest.mark.parametrize("model", students_of(), ids=lambda m: type(m).__name__)
def test_what_is_cut_is_what_was_asked(model: Any) -> None:
    ids = torch.arange(3, 13)[None]
    whole = with_width(with_layers(model, [0, 1, 2, 3]), [range(48)] * 4)
    assert torch.allclose(whole(ids).logits, model(ids).logits, atol=1e-6)
    parts = feed_forwards(model)
    with torch.no_grad():  # neurons without a say
        for part in parts:
            part.back.weight[:, ::3] = 0
    kept = [i for i in range(48) if i % 3]
    narrow = with_width(model, [kept] * 4)
    assert torch.allclose(narrow(ids).logits, model(ids).logits, atol=1e-5)
    assert narrow.num_parameters() < model.num_parameters()
    short = with_layers(model, [0, 3])
    assert len({short(ids).logits.sum(), model(ids).logits.sum()}) == 2
    again = type(short)(short.config)
    again.load_state_dict(short.state_dict())


def test_neurons_without_a_say_matter_least() -> None:
    model = made(BertForSequenceClassification, BertConfig)
    idle = list(range(0, 48, 4))
    with torch.no_grad():
        for part in feed_forwards(model):
            part.back.weight[:, idle] = 0
    ids = torch.randint(3, 50, (8, 12))
    found = importances(model, [lambda: model(ids).logits.square().sum()])
    for one in found:
        assert sorted(one.topk(len(idle), largest=False).indices.tolist()) == idle


@pytest.mark.parametrize(
    ("model", "cut"),
    [
        (made(AlbertForSequenceClassification, AlbertConfig, embedding_size=8),
         lambda m: with_layers(m, [0])),
        (made(ModernBertForSequenceClassification, ModernBertConfig, pad_token_id=0,
              bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2), feed_forwards),
    ],
    ids=["albert", "modernbert"],
)  # fmt: skip
def test_what_can_not_be_cut_is_said(model: Any, cut: Callable[[Any], Any]) -> None:
    with pytest.raises(CannotShrink):
        cut(model)


def test_layers_are_kept_evenly() -> None:
    assert evenly(6, 2) == [0, 5]
    assert evenly(12, 4) == [0, 4, 7, 11]
    assert evenly(3, 1) == [0]
    assert evenly(6, 6) == list(range(6))


# --- vocabularies

WORDS = ["low", "lower", "lowest", "new", "newer", "newest", "wide", "wider", "slow", "slower"]
CORPUS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 3


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """A small one, trained on CORPUS, with specials around each text."""
    from tokenizers.processors import TemplateProcessing

    special = ["<pad>", "<unk>", "<s>", "</s>"]
    model, trainer, splitter = {
        "WordPiece": (
            models.WordPiece(unk_token="<unk>"),  # type: ignore[call-arg]
            trainers.WordPieceTrainer(vocab_size=60, special_tokens=special),
            pre_tokenizers.Whitespace(),
        ),
        "BPE": (
            models.BPE(unk_token=None),
            trainers.BpeTrainer(
                vocab_size=330,
                special_tokens=special,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            ),
            pre_tokenizers.ByteLevel(),
        ),
        "Unigram": (
            models.Unigram(),
            trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>"),
            pre_tokenizers.Metaspace(),
        ),
    }[kind]  # type: ignore[index]
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitter
    if kind == "BPE":
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainer)
    names = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", names)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>", cls_token="<s>", sep_token="</s>",
    )  # fmt: skip


KINDS = {kind: tokenizer_of(kind) for kind in ("WordPiece", "BPE", "Unigram")}
MODEL = made(BertForSequenceClassification, BertConfig, vocab_size=400)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), other=st.text(max_size=12))
def test_kept_texts_keep_their_logits_and_others_can_be_read(
    kind: str, words: list[str], other: str
) -> None:
    tokenizer, text = KINDS[kind], " ".join(words)
    found = trim(MODEL, tokenizer, [text])
    assert changed(tokenizer, found, [text]) == []
    assert len(found.kept) <= len(tokenizer)
    before = MODEL(torch.tensor([tokenizer(text)["input_ids"]])).logits
    after = found.model(torch.tensor([found.tokenizer(text)["input_ids"]])).logits
    assert torch.equal(before, after)
    strange = found.tokenizer(other)["input_ids"]
    assert max(strange) < found.model.config.vocab_size
    if kind == "BPE":  # of bytes: everything can be spelt
        assert found.tokenizer.decode(strange, skip_special_tokens=True).strip() == other.strip()


def test_special_tokens_stay_first_and_configs_follow() -> None:
    found = trim(MODEL, KINDS["WordPiece"], ["low"])
    assert found.tokenizer.all_special_ids == KINDS["WordPiece"].all_special_ids
    assert found.model.config.vocab_size == len(found.kept) == len(found.tokenizer)
    assert found.model.config.pad_token_id == MODEL.config.pad_token_id


def test_a_trimmed_tokenizer_is_saved_as_it_is(tmp_path: Path) -> None:
    for kind, tokenizer in KINDS.items():
        found = trim(MODEL, tokenizer, ["lower newest"])
        found.tokenizer.save_pretrained(tmp_path / kind)
        again = AutoTokenizer.from_pretrained(tmp_path / kind)
        text = "lower newest wide"
        assert again(text)["input_ids"] == found.tokenizer(text)["input_ids"]


def test_a_word_level_vocabulary_can_not_be_trimmed() -> None:
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    )
    with pytest.raises(CannotTrim, match="WordLevel"):
        trim(MODEL, plain, ["a"])


def test_a_model_with_fewer_rows_than_ids_is_refused() -> None:
    few = made(BertForSequenceClassification, BertConfig, vocab_size=10)
    with pytest.raises(CannotTrim, match="10 rows"):
        trim(few, KINDS["BPE"], ["lower"])


def test_figures_beside_each_other_are_those_of_the_logits(tmp_path: Path) -> None:
    from deployments.optimise.finetuning import Task
    from deployments.optimise.shrunk import beside

    gold = np.array([0, 1] * 20)
    right = np.eye(2, dtype=np.float32)[gold]
    wrong = right.copy()
    wrong[:10] = wrong[:10, ::-1]
    found = beside("no/model", tmp_path, (right, wrong), gold, Task(), ["text"], None)
    assert found.agreement == 0.75
    assert found.kept == pytest.approx(0.75, abs=0.01)
    assert found.speeds is None
    assert found.faster is None
