"""Answers for eyes (a table) and for programmes (JSON lines)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deployments.cli.client import Answer

Classified = Iterable[tuple[str, Answer]]

_BAR_WIDTH = 12
_SMALL = 20  # texts that need no progress bar


def show_json(classified: Classified, total: int | None) -> tuple[int, int]:
    """One object per line, as soon as it is known. Returns how many texts, and how many errors."""
    n_texts = n_errors = 0
    for text, answer in _with_progress(classified, total):
        n_texts += 1
        n_errors += "error" in answer
        sys.stdout.write(json.dumps({"text": text, **answer}, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return n_texts, n_errors


def show_table(classified: Classified, total: int | None) -> tuple[int, int]:
    """A row per text. Returns how many texts, and how many errors."""
    console = Console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    # Texts are cut, so that no other column ever is.
    table.add_column("text", no_wrap=True, max_width=max(10, console.width * 45 // 100))
    table.add_column("label", overflow="fold", max_width=max(10, console.width // 4))
    table.add_column("score", justify="right", no_wrap=True, min_width=6)
    table.add_column("", overflow="fold")
    n_texts = n_errors = 0
    for text, answer in _with_progress(classified, total):
        n_texts += 1
        n_errors += "error" in answer
        for row in _rows(text, answer):
            table.add_row(*row)
    if n_texts:
        console.print(table)
    return n_texts, n_errors


def _rows(text: str, answer: Answer) -> Iterator[tuple[Text, Text, str, Text]]:
    shown = Text(" ".join(text.split()))  # Text, not str: brackets in it are no markup
    if "error" in answer:
        error = answer["error"]
        message = Text(str(error.get("message")), style="red")
        yield shown, Text("error", style="red"), "", message
        return
    scores: dict[str, float] = answer.get("scores") or {answer["label"]: answer["score"]}
    best = answer["label"]
    for label, score in scores.items():
        style = "bold" if label == best else "dim"
        yield shown, Text(label, style=style), f"{score:.1%}", Text(_bar(score), style="green")
        shown = Text("")


def _bar(score: float) -> str:
    return "█" * round(_BAR_WIDTH * min(max(score, 0.0), 1.0))


def _with_progress(classified: Classified, total: int | None) -> Classified:
    """The same, with a bar on stderr for long inputs, where stderr is a terminal."""
    if not sys.stderr.isatty() or (total is not None and total <= _SMALL):
        yield from classified
        return
    columns = (
        TextColumn("classifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # rich would send what goes to stdout meanwhile to stderr, and so past a pipe.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
    ) as progress:
        task = progress.add_task("", total=total)
        for item in classified:
            yield item
            progress.advance(task)
