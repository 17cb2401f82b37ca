"""Tables with labels: which rows count, and why the others don't."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.bulk.columns import check_there, no_text
from deployments.bulk.tables import BadTable, Format, Row, format_of, opened

MIN_ROWS = 30
"""Below it every interval is so wide that no model can be told from another."""
MIN_PER_LABEL = 5


class BadData(Exception):
    """The rows can't tell what is asked of them. The message says how many there are, and what
    would do."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Distinct texts, each with its one label. notes: what was left out, with counts.

    pairs: the second text of each, where the table has one.
    """

    texts: list[str]
    labels: list[str]
    notes: tuple[str, ...] = ()
    pairs: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def names(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted(set(self.labels))

    def rows(self, chosen: Sequence[int], notes: tuple[str, ...] | None = None) -> Labelled:
        """Some of them, in the order asked for."""
        return Labelled(
            [self.texts[i] for i in chosen],
            [self.labels[i] for i in chosen],
            self.notes if notes is None else notes,
            None if self.pairs is None else [self.pairs[i] for i in chosen],
        )

    def sha256(self) -> str:
        """Names the texts without telling them: equal for the same rows in any order."""
        lines = sorted("\t".join(row) for row in zip(*self._columns(), strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _columns(self) -> tuple[list[str], ...]:
        return (
            (self.texts, self.labels)
            if self.pairs is None
            else (self.texts, self.pairs, self.labels)
        )

    def _keys(self) -> list[str]:
        return [
            _key(*texts)
            for texts in zip(self.texts, *([self.pairs] if self.pairs else []), strict=True)
        ]


def read_labelled(
    path: str,
    text_column: str = "text",
    label_column: str = "label",
    kind: Format | None = None,
    encoding: str = "utf-8",
    separator: str | None = None,
    pair_column: str | None = None,
    numbers: bool = False,
) -> Labelled:
    """The rows that have a text and a label.

    separator: stands between the labels of a row that may have several, or none. A list in jsonl
    and parquet needs it too. They are then joined by it, sorted.
    numbers: labels are finite numbers, for a regression; what is none counts as no label.

    Raises:
        BadTable: the file can't be read, or lacks a column.
        BadData: too few rows or labels are left.
    """
    with opened(path, format_of(path, kind), encoding) as table:
        if table.columns is not None:
            columns = (text_column, label_column, *([pair_column] if pair_column else []))
            check_there(columns, table.columns, "Name yours: --text-column, --label-column.")
        return labelled(
            table.rows, path, text_column, label_column, separator, pair_column, numbers
        )


def labelled(
    rows: Iterable[Row],
    path: str,
    text_column: str,
    label_column: str,
    separator: str | None = None,
    pair_column: str | None = None,
    numbers: bool = False,
) -> Labelled:
    """As `read_labelled`, of rows that are read already."""
    n_rows = 0
    left_out: Counter[str] = Counter()
    seen: dict[str, tuple[list[str], set[str]]] = {}
    columns = [text_column, *([pair_column] if pair_column else [])]
    for row in rows:
        n_rows += 1
        texts: list[Any] = [row.fields.get(column) for column in columns]
        found = row.fields.get(label_column)
        label = _number(found) if numbers else _label(found, separator)
        if row.fault is not None:
            left_out["can't be read"] += 1
        elif any(map(no_text, texts, columns)) or not all(map(str.strip, texts)):
            left_out["have no text"] += 1
        elif label is None:
            left_out["have no label"] += 1
        else:
            seen.setdefault(_key(*texts), (texts, set()))[1].add(label)
    good = n_rows - left_out.total()
    kept = [(texts, min(labels)) for texts, labels in seen.values() if len(labels) == 1]
    notes = [f"{n:,} of {n_rows:,} rows {why}: left out." for why, n in left_out.items()]
    if n_against := len(seen) - len(kept):
        notes.append(f"{n_against:,} texts stand there with several labels: left out.")
    if n_again := good - len(seen):
        notes.append(f"{n_again:,} rows repeat a text: each text counts once.")
    data = Labelled(
        [texts[0] for texts, _ in kept],
        [label for _, label in kept],
        tuple(notes),
        [texts[1] for texts, _ in kept] if pair_column else None,
    )
    check_enough(data, path)
    return data


def check_enough(data: Labelled, path: str) -> None:
    """Raises BadData where the rows can't be scored."""
    said = f" {' '.join(data.notes)}" if data.notes else ""
    if len(data) < MIN_ROWS:
        raise BadData(
            f"{path} has {len(data)} texts with a label; {MIN_ROWS} are the least.{said} "
            "Label more texts, or name the columns: --text-column, --label-column."
        )
    if len(data.names) < 2:
        raise BadData(
            f"all {len(data):,} texts of {path} have the label {data.names[0]!r}: nothing can be "
            f"told apart.{said} Add texts of the other labels."
        )


def check_splits(data: Labelled, n_parts: int, path: str) -> None:
    """Raises BadData where a label has no row for each of `n_parts`."""
    counts = Counter(data.labels)
    if few := {label: n for label, n in counts.items() if n < n_parts}:
        raise BadData(
            f"{n_parts} rows of each label are the least for {n_parts} parts; {path} has "
            f"{', '.join(f'{n} of {label!r}' for label, n in sorted(few.items()))}. Label more."
        )


def without(data: Labelled, others: Labelled, path: str, of: str) -> Labelled:
    """`data` less the texts that `others` holds too.

    Raises:
        BadData: too little is left.
    """
    known = set(others._keys())
    kept = [i for i, key in enumerate(data._keys()) if key not in known]
    n_leaks = len(data) - len(kept)
    if not n_leaks:
        return data
    note = f"{n_leaks:,} of {len(data):,} texts stand in {of} too: left out of {path}."
    if len(kept) < MIN_ROWS:
        raise BadData(
            f"{n_leaks:,} of {len(data):,} texts of {path} stand in {of} too; {len(kept)} are left "
            f"and {MIN_ROWS} are the least. Give tables that share no text."
        )
    left = data.rows(kept, (*data.notes, note))
    check_enough(left, path)
    return left


def sets_of(data: Labelled, separator: str) -> list[set[str]]:
    """The labels of each row that may have several."""
    return [set(filter(None, label.split(separator))) for label in data.labels]


def check_known(
    data: Labelled, model: str, labels: Sequence[str], separator: str | None = None
) -> None:
    """Raises BadData where rows have labels that the model can't give."""
    rows = [{label} for label in data.labels] if separator is None else sets_of(data, separator)
    counts = Counter(label for row in rows for label in sorted(row) if label not in labels)
    if counts:
        some = ", ".join(f"{n:,} of {label!r}" for label, n in counts.most_common(5))
        raise BadData(
            f"{counts.total():,} of {len(data):,} rows have labels that {model} does not have: "
            f"{some}. Its labels are {', '.join(labels[:12])}. Rename those of the table, or leave "
            "the model out."
        )


def _key(*texts: str) -> str:
    """The same for texts that differ in white space alone."""
    return "\n".join(" ".join(text.split()) for text in texts)


def _number(value: Any) -> str | None:
    """A finite number as the label column's text; None where it is no such."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return repr(number) if math.isfinite(number) else None


def _label(value: Any, separator: str | None) -> str | None:
    """What stands in a row's label column, as one name; None where nothing does."""
    if separator is None or value is None:
        return _name(value)
    parts = value if isinstance(value, list) else str(value).split(separator)
    return separator.join(sorted({name for part in parts if (name := _name(part))}))


def _name(value: Any) -> str | None:
    """A label as a name. Parquet and jsonl may hold numbers."""
    if isinstance(value, list | dict):
        raise BadTable("a row has several labels. Tables of one label a row are read here.")
    if isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value)
    return None if value is None else str(value).strip() or None
