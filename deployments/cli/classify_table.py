"""`rayclassify classify TABLE --text-column`: a table in, a table with labels out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from deployments.cli.exit_codes import DONE, NO, UNREACHABLE, WRONG

# Of one batch with all its tries; whoever classifies a table would rather wait than begin again.
TIMEOUT_S = 600.0


def classify_table(
    tables: list[str],
    *,
    url: str,
    key: str | None,
    text_column: str | None,
    pair_column: str | None,
    output: Path | None,
    add: str,
    prefix: str,
    kind: str | None,
    encoding: str,
    force: bool,
    long_text: str | None,
) -> int:
    """The exit code: 1: some rows are bad; see exit_codes.py."""
    from deployments.bulk.columns import ADDED
    from deployments.bulk.run import Job, run
    from deployments.bulk.tables import BadTable, Format
    from rayclassify_client import Client, ClientError

    if len(tables) != 1:
        raise typer.BadParameter("name one table; `-` is stdin.", param_hint="TEXTS")
    if text_column is None:
        raise typer.BadParameter("say which column holds the texts.", param_hint="--text-column")
    if output is None:
        raise typer.BadParameter("name the file to write.", param_hint="--output")
    wanted = tuple(name.strip() for name in add.split(",") if name.strip())
    if unknown := set(wanted) - set(ADDED):
        raise typer.BadParameter(
            f"{min(unknown)}; there are {', '.join(ADDED)}.", param_hint="--add"
        )
    kinds: dict[str, Format] = {name: name for name in get_args(Format)}
    if kind is not None and kind not in kinds:
        raise typer.BadParameter(
            f"{kind}; there are {', '.join(kinds)}.", param_hint="--input-format"
        )
    job = Job(
        tables[0],
        output,
        text_column,
        pair_column,
        wanted,
        prefix,
        kinds[kind] if kind else None,
        encoding,
        force,
        long_text,
    )
    say = Console(stderr=True)
    try:
        with (
            Client(url, key, priority="bulk", long_text=long_text, timeout_s=TIMEOUT_S) as client,
            _bar(say) as progress,
        ):
            done = run(client, job, _shower(progress))
    except BadTable as exc:
        say.print(f"error: {exc}", soft_wrap=True, markup=False, highlight=False)
        return WRONG
    except ClientError as exc:
        say.print(
            f"error: {exc} What is done is kept: start the command again.",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        return UNREACHABLE
    before = f", {done.resumed:,} of them by an earlier run" if done.resumed else ""
    say.print(f"{done.rows:,} rows{before}: {output}", soft_wrap=True, highlight=False)
    if done.bad_file is not None:
        say.print(
            f"{done.bad:,} rows have no label: {done.bad_file}", soft_wrap=True, highlight=False
        )
        return NO
    return DONE


def _bar(console: Console) -> Progress:
    """Shown on a terminal only."""
    return Progress(
        TextColumn("{task.fields[rows]:,} rows"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} rows/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not console.is_terminal,
    )


def _shower(progress: Progress) -> Any:
    task = progress.add_task("", total=None, rows=0, rate=0.0)
    first: list[int] = []

    def show(rows: int, done: int, total: int) -> None:
        if not first:
            first.append(rows)
        elapsed_s = progress.tasks[task].elapsed or 0.0
        rate = (rows - first[0]) / elapsed_s if elapsed_s else 0.0
        progress.update(task, completed=done, total=total or None, rows=rows, rate=rate)

    return show
