"""The columns that a table gets, by the command and by Ray Data: names, types, values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.bulk.tables import BadTable

ADDED = ("label", "score", "scores", "labels", "tokens", "truncated")
"""Columns that can be added."""


def arrow_types(pa: Any) -> dict[str, Any]:
    """pyarrow's type of each of `ADDED`. `scores` is JSON: its keys differ from model to model."""
    return {
        "label": pa.string(),
        "score": pa.float64(),
        "scores": pa.string(),
        "labels": pa.list_(pa.string()),
        "tokens": pa.int64(),
        "truncated": pa.bool_(),
    }


def value_of(answer: Mapping[str, Any] | None, name: str, nested: bool = False) -> Any:
    """What stands in the column `name`; None where there is no answer.

    nested: the format holds objects, so that `scores` need not be JSON.
    """
    value = None if answer is None else answer.get(name)
    if name == "scores" and value is not None and not nested:
        return json.dumps(value, ensure_ascii=False)
    return value


def no_text(value: Any, column: str | None) -> str | None:
    """Why this field is not asked about; None where it is a text."""
    if isinstance(value, str):
        return None
    return f"{column} is {'missing' if value is None else 'no text'}."


def check_there(
    wanted: Sequence[str | None], columns: Sequence[str], cure: str | None = None
) -> None:
    """Raises BadTable where a column that is read is not there. None is none.

    cure: how to name another one.
    """
    if len(columns) == 1 and ";" in columns[0]:  # as Excel writes csv in half of Europe
        cure = "They stand in one: separate fields by commas, not by semicolons."
    for column in filter(None, wanted):
        if column not in columns:
            told = f"there is no column {column}. The columns are {', '.join(columns)}."
            raise BadTable(f"{told} {cure}" if cure else told)


def check_free(added: Sequence[str], columns: Sequence[str], cure: str) -> None:
    """Raises BadTable where a column to add is there already. cure: how to say a prefix."""
    if taken := [name for name in added if name in columns]:
        raise BadTable(f"the table has a column {taken[0]} already. Say {cure}, for one.")
