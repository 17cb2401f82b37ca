"""`rayclassify classify`: texts in, labels out, from a running service."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deployments.cli.exit_codes import NO, UNREACHABLE, WRONG
from deployments.cli.formats import Format, chosen, print_csv

if TYPE_CHECKING:
    from rayclassify_client import Client

DEFAULT_URL = "http://127.0.0.1:8000"
_BAR_WIDTH = 12
_SMALL = 20  # texts that need no progress bar
# For a batch with all its tries: a service that is full or restarts says when to come again.
TIMEOUT_S = 90.0

UrlOption = Annotated[str, typer.Option(help="Where the service is.", envvar="RAYCLASSIFY_URL")]
KeyOption = Annotated[
    str | None,
    typer.Option(
        help="The API key, where the service asks for one; others on this machine may see it here, "
        "and not in the variable.",
        envvar="RAYCLASSIFY_KEY",
        show_envvar=True,
    ),
]
Answer = dict[str, Any]
Classified = Iterable[tuple[str, Answer]]


def classify(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; `-` reads one per line from stdin.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="One text per line, UTF-8; `-` for stdin."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    top_k: Annotated[
        int | None, typer.Option("--top-k", "-k", min=1, help="Labels per text, best first.")
    ] = None,
    long_text: Annotated[
        str | None,
        typer.Option(help="Of texts too long for the model: truncate, window or error."),
    ] = None,
    key: KeyOption = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format", help="How to print it: a table on a terminal by default, else JSON lines."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    text_column: Annotated[
        str | None,
        typer.Option(help="TEXTS is one table (csv, tsv, jsonl, parquet, .gz, .zst); its texts."),
    ] = None,
    pair_column: Annotated[
        str | None, typer.Option(help="The second halves, for models that read pairs.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The table with the added columns.")
    ] = None,
    add: Annotated[
        str, typer.Option(help="Columns to add: label,score,scores,labels,tokens,truncated.")
    ] = "label,score",
    prefix: Annotated[str, typer.Option(help="Of the added columns.")] = "",
    table_format: Annotated[
        str | None,
        typer.Option("--input-format", help="Of the table, where its name does not say."),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of a csv, tsv or jsonl file.")] = "utf-8",
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew, over an output that is there.")
    ] = False,
) -> None:
    """Classify texts with a running service.

    Prints a table on a terminal, else one JSON object per line, in the order of the texts; a text
    that could not be classified, a blank line for one, has an `error`.

    A table keeps its rows, their order and all columns. Bad rows have no label and stand in
    OUTPUT.bad.jsonl with number and reason. A run that was killed goes on when started again.

    Examples:

    - `rayclassify classify data.csv --text-column review -o out.parquet`

    - `rayclassify classify "质量很好，会再来" "再也不买了"`

    - `rayclassify classify --file reviews.txt --json > labels.jsonl`

    - `cut -f2 reviews.tsv | rayclassify classify - | jq -r .label`
    """
    if long_text not in (None, "truncate", "window", "error"):
        raise typer.BadParameter("truncate, window or error", param_hint="--long-text")
    if text_column is not None or output is not None:
        from deployments.cli.classify_table import classify_table

        if format_ is not None or as_json:
            raise typer.BadParameter(
                "a table's kind is that of the name after --output.", param_hint="--format"
            )
        raise typer.Exit(
            classify_table(
                list(texts or []),
                url=url,
                key=key,
                text_column=text_column,
                pair_column=pair_column,
                output=output,
                add=add,
                prefix=prefix,
                kind=table_format,
                encoding=encoding,
                force=force,
                long_text=long_text,
            )
        )
    from rayclassify_client import Client, ClientError
    from rayclassify_client.errors import NotThisService, Unreachable

    source, total = _texts(list(texts or []), file)
    form = chosen(format_, as_json, Format.table if sys.stdout.isatty() else Format.json)
    show = _SHOWN[form]
    try:
        with Client(url, key, top_k=top_k, long_text=long_text, timeout_s=TIMEOUT_S) as client:
            n_texts, n_errors = show(_classified(client, source), total)
    except ClientError as exc:
        where = isinstance(exc, Unreachable | NotThisService)
        typer.echo(f"error: {exc}{' --url names it.' if where else ''}", err=True)
        raise typer.Exit(UNREACHABLE) from None
    if n_texts == 0:
        typer.echo("error: no text was given: the input is empty.", err=True)
    if n_errors or n_texts == 0:
        raise typer.Exit(NO)


def _classified(client: Client, texts: Iterable[str]) -> Classified:
    """Each text with its answer, in order; a bad text's answer is `{"error": …}`."""
    from rayclassify_client import ServiceError

    sent: deque[str] = deque()

    def sending() -> Iterator[str]:
        for text in texts:
            sent.append(text)
            yield text

    for result in client.classify_many(sending()):
        if isinstance(result, ServiceError):
            yield sent.popleft(), {"error": result.body()}
        else:
            yield sent.popleft(), dict(result.raw)


def _texts(texts: list[str], file: Path | None) -> tuple[Iterable[str], int | None]:
    """The texts and, where it is known, how many there are."""
    if file is None and not texts and sys.stdin.isatty():
        raise typer.BadParameter("no text given. Pass texts, `--file FILE`, or `-` for stdin.")
    if texts and file is not None:
        raise typer.BadParameter("give texts or --file, not both.")
    if texts and texts != ["-"]:
        return texts, len(texts)
    if file is None or str(file) == "-":
        return _lines(sys.stdin.buffer), None
    if not file.is_file():
        raise typer.BadParameter(f"{file} is no file.", param_hint="--file")
    return _lines(file.open("rb")), _count_lines(file)


def read_lines(file: str, at_most: int) -> list[str]:
    """The first texts of a file, one per line, blank ones left out; `-` for stdin."""
    if file != "-" and not Path(file).is_file():
        raise typer.BadParameter(f"{file} is no file.", param_hint="TEXTS")
    stream = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
    return list(islice(filter(str.strip, _lines(stream)), at_most))


def _lines(stream: BinaryIO) -> Iterator[str]:
    """Lines without their ends. Only \\n ends a line: other separators are part of a text."""
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                typer.echo(f"error: line {number} is not UTF-8; save it as UTF-8.", err=True)
                raise typer.Exit(WRONG) from None
            yield text


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def show_json(classified: Classified, total: int | None) -> tuple[int, int]:
    """One object per line, as soon as it is known. Returns how many texts, and how many errors."""
    n_texts = n_errors = 0
    for text, answer in _with_progress(classified, total):
        n_texts += 1
        n_errors += "error" in answer
        sys.stdout.write(json.dumps({"text": text, **answer}, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    return n_texts, n_errors


def show_csv(classified: Classified, total: int | None) -> tuple[int, int]:
    """A line per text, as soon as it is known. Returns how many texts, and how many errors."""
    n_texts = n_errors = 0

    def rows() -> Iterator[Answer]:
        nonlocal n_texts, n_errors
        for text, answer in _with_progress(classified, total):
            n_texts += 1
            n_errors += "error" in answer
            error = answer.get("error") or {}
            yield {**answer, "text": text, "error": error.get("message")}

    print_csv(("text", "label", "score", "error"), rows())
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


_SHOWN = {Format.json: show_json, Format.csv: show_csv, Format.table: show_table}


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
