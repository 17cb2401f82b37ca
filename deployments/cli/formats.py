"""What a command prints: a table for people, JSON or CSV for programmes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    csv = "csv"


FormatOption = Annotated[
    Format | None, typer.Option("--format", help="How to print it; a table by default.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]


def chosen(wanted: Format | None, as_json: bool, default: Format = Format.table) -> Format:
    """`--format`, or `--json`, which is short for `--format json`."""
    if as_json and wanted not in (None, Format.json):
        raise typer.BadParameter(f"--json and --format {wanted}: choose one.", param_hint="--json")
    return Format.json if as_json else wanted or default


def print_json(content: Any) -> None:
    """One document, to be read by people too."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def print_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A line for the names, then one for each row; what a row lacks is empty."""
    writer = csv.DictWriter(sys.stdout, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    sys.stdout.flush()
