#!/usr/bin/env python
"""Long texts, cut or read in windows: how often each is right, on documents made of reviews.

    python scripts/long_texts.py

A document is some reviews of the demo's test split, as many as make it longer than the model reads.
Two thirds of them agree; their label is the document's. `first`: they stand first, `last`: last,
`mixed`: anywhere. Needs the extra `train`.
"""

import argparse
import random
import time
from collections.abc import Iterator
from typing import Any

from deployments.local import LocalClassifier
from scripts.demo.data import load_corpus

LABELS = ("negative", "positive")
# How a text is asked, and args.long_text.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "truncate": ("truncate", {}),
    "window": ("window", {}),
    "window, pooling max": ("window", {"pooling": "max"}),
    "window, of 128 tokens": ("window", {"window_tokens": 128}),
    "window, of 128 tokens, by tokens": ("window", {"window_tokens": 128, "pooling": "length"}),
    "window, of 128 tokens, max": ("window", {"window_tokens": 128, "pooling": "max"}),
}


def documents(n: int, reviews: int, order: str, seed: int) -> Iterator[tuple[str, str]]:
    """Text and label."""
    draw = random.Random(seed)
    test = load_corpus().test
    by_label: list[list[str]] = [[], []]
    for text, label in zip(test.texts, test.labels, strict=True):
        by_label[label].append(text)
    for i in range(n):
        label = i % 2
        most = draw.sample(by_label[label], reviews * 2 // 3)
        rest = draw.sample(by_label[1 - label], reviews - len(most))
        parts = rest + most if order == "last" else most + rest
        if order == "mixed":
            draw.shuffle(parts)
        yield (
            "".join(part if part[-1] in "。！？" else part + "。" for part in parts),
            LABELS[label],
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--reviews", type=int, default=24)
    parser.add_argument("--model", default="models/demo")
    args = parser.parse_args()
    orders = ("first", "mixed", "last")
    made = {o: list(documents(args.documents, args.reviews, o, seed=1)) for o in orders}
    print("| right of " + str(args.documents) + " | " + " | ".join(orders) + " | tokens/s |")
    print("|---|---|---|---|---|")
    lengths: list[int] = []
    for way, (asked, long_text) in WAYS.items():
        settings = {
            "model": {"id": args.model},
            "engine": {"name": "torch", "dtype": "float32"},
            "long_text": long_text,
        }
        right: dict[str, int] = {}
        tokens, started = 0, 0.0
        with LocalClassifier(settings) as classifier:
            started = time.perf_counter()
            for order, rows in made.items():
                answers: Any = [classifier.classify(text, long_text=asked) for text, _ in rows]
                right[order] = sum(
                    answer["label"] == label
                    for answer, (_, label) in zip(answers, rows, strict=True)
                )
                lengths = [answer["tokens"] for answer in answers]
                tokens += sum(lengths)
            seconds = time.perf_counter() - started
        shares = " | ".join(f"{right[o] / len(made[o]):.1%}" for o in orders)
        print(f"| {way} | {shares} | {tokens / seconds:,.0f} |", flush=True)
    print(f"\n{sum(lengths) / len(lengths):,.0f} tokens in a document on average.")


if __name__ == "__main__":
    main()
