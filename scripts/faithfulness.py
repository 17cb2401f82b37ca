#!/usr/bin/env python
"""Does a text lose its label with the words that an explanation names? Each method, beside chance.

    python scripts/faithfulness.py models/demo build/tables/reviews-test.csv

Cuts the fifth of a text's parts with the highest attribution out of it, and asks again. Prints by
how much the score of the label falls, less how much it falls with a random fifth cut out: mean over
texts with a bootstrap interval of 95 %.
"""

import argparse
import csv
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.local import LocalClassifier
from deployments.pipeline.errors import ServiceError

METHODS = ("integrated_gradients", "gradient_x_input", "occlusion")
SHARE, N_RANDOM, N_BOOTSTRAP = 0.2, 5, 10_000
MIN_PARTS = 5  # of fewer, a fifth is less than one


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path, help="a table with the column `text`")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--passes", type=int, default=32)
    args = parser.parse_args()
    rng = random.Random(0)
    with args.data.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    rng.shuffle(texts)
    settings = {"model": {"id": args.model}, "engine": {"name": "torch", "dtype": "float32"}}
    gains: dict[str, list[float]] = {method: [] for method in METHODS}
    drops: dict[str, list[float]] = {method: [] for method in (*METHODS, "random")}
    left_out = 0
    with LocalClassifier(settings) as classifier:
        for text in texts:
            if len(drops["random"]) == args.texts:
                break
            found = explained(classifier, text, args.passes)
            if found is None:
                left_out += 1
                continue
            cut = [top(one["explanation"]["tokens"]) for one in found]
            parts = found[0]["explanation"]["tokens"]
            cut += [rng.sample(parts, len(cut[0])) for _ in range(N_RANDOM)]
            label, score = found[0]["label"], found[0]["score"]
            left = [without(text, parts) for parts in cut]
            fell = [score - scores(classifier, one)[label] for one in left]
            chance = sum(fell[len(METHODS) :]) / N_RANDOM
            drops["random"].append(chance)
            for method, drop in zip(METHODS, fell, strict=False):
                drops[method].append(drop)
                gains[method].append(drop - chance)
            if (done := len(drops["random"])) % 25 == 0:
                print(f"{done} texts", file=sys.stderr, flush=True)
    n = len(drops["random"])
    print(f"{args.model}, {args.data.name}: {n} texts, {args.passes} passes, {left_out} "
          f"too short, too long or unread left out; a random fifth takes "
          f"{np.mean(drops['random']):.3f} from the score")  # fmt: skip
    print("| method | its fifth takes | more than a random one, 95 % interval |")
    print("|---|---|---|")
    for method in METHODS:
        low, high = interval(gains[method])
        mean = np.mean(gains[method])
        print(f"| {method} | {np.mean(drops[method]):.3f} | {mean:.3f} ({low:.3f} to {high:.3f}) |")


def explained(classifier: LocalClassifier, text: str, passes: int) -> list[dict[str, Any]] | None:
    """The text explained by each method; None where it is too short or no text for this model."""
    try:
        found = [classifier.explain(text, method=one, passes=passes) for one in METHODS]
    except ServiceError:
        return None
    explanation = found[0]["explanation"]
    usable = len(explanation["tokens"]) >= MIN_PARTS and not explanation["truncated"]
    return found if usable else None


def top(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    ranked = sorted(parts, key=lambda part: -float(part["attribution"]))
    return ranked[: math.ceil(SHARE * len(parts))]


def without(text: str, parts: Sequence[dict[str, Any]]) -> str:
    for part in sorted(parts, key=lambda part: -int(part["start"])):
        text = text[: part["start"]] + text[part["end"] :]
    return text


def scores(classifier: LocalClassifier, text: str) -> dict[str, float]:
    answer = classifier.classify(text)
    if not isinstance(answer, dict):
        raise TypeError("one text has one answer")
    found: dict[str, float] = answer["scores"]
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(values, (N_BOOTSTRAP, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
