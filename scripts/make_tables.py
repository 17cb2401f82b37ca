#!/usr/bin/env python
"""Write the labelled tables that our own models were made and judged by: CSV, one file a split.

    python scripts/make_tables.py build/tables

- reviews-{train,validation,test}.csv: Chinese shop reviews, `negative` or `positive`
- films-*, products-*, tweets-*, editorials-*: English snippets, the same labels
- films-rating-*: films with their mean rating, -4 to 4, as a number: a regression
- genre-*: which of the four kinds a snippet is of
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from scripts.demo.data import Split, load_corpus
from scripts.demo.snippets import FILES, read_snippets, sentiment_splits, split_snippets

NAMES = ("negative", "positive")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--snippets", type=Path, help="where the English source is kept")
    args = parser.parse_args()
    folder: Path = args.folder
    source: Path = args.snippets or folder
    folder.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus()
    for name in ("train", "validation", "test"):
        write_split(folder / f"reviews-{name}.csv", getattr(corpus, name))
    genres: dict[str, list[tuple[str, object]]] = {}
    for kind in FILES:
        snippets = read_snippets(kind, source)
        for name, split in sentiment_splits(snippets).items():
            write_split(folder / f"{kind}-{name}.csv", split)
        if kind == "films":
            rated = split_snippets(snippets, lambda one: round(one.rating, 4))
            for name, part in rated.items():
                write(folder / f"films-rating-{name}.csv", [(one.text, y) for one, y in part])
        for name, part in split_snippets(snippets, lambda _: True).items():
            genres.setdefault(name, []).extend((one.text, kind) for one, _ in part)
    for name, genre in genres.items():
        write(folder / f"genre-{name}.csv", genre)


def write_split(path: Path, split: Split) -> None:
    write(path, [(text, NAMES[y]) for text, y in zip(split.texts, split.labels, strict=True)])


def write(path: Path, rows: Sequence[tuple[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    print(f"{path}: {len(rows):,} rows")


if __name__ == "__main__":
    main()
