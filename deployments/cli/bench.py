"""`rayclassify bench URL …`: how fast servers are, ours or others, side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from deployments import installing
from deployments.cli.classify import read_lines
from deployments.cli.exit_codes import NO, UNREACHABLE
from deployments.cli.formats import Format, FormatOption, JsonOption, chosen, print_csv, print_json

if TYPE_CHECKING:
    from deployments.bench.run import Level, Result
    from deployments.bench.target import Target

MAX_TEXTS = 2_000
MAX_PER_REQUEST = 1_024
_PLOTS = {".svg", ".png", ".pdf"}


def _dialects(incomplete: str) -> list[str]:
    from deployments.bench.dialects import DIALECTS

    return [name for name in DIALECTS if name.startswith(incomplete)]


def bench(
    urls: Annotated[list[str], typer.Argument(metavar="URL", help="Servers, as http://HOST:PORT.")],
    dialects: Annotated[
        list[str] | None,
        typer.Option(
            "--dialect",
            help="ours, tei, vllm, infinity, kserve, oip, sagemaker, vertex or openai: one for "
            "all URLs, or one for each.",
            autocompletion=_dialects,
        ),
    ] = None,
    connections: Annotated[
        str | None,
        typer.Option(
            help="Closed loop: callers that ask again when answered; 1,4,16,64 by default."
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(help="Open loop: Poisson arrivals a second, as 50,100,200."),
    ] = None,
    duration_s: Annotated[
        float, typer.Option("--duration-s", help="Of each load on each server.", min=0.1)
    ] = 10.0,
    texts_per_request: Annotated[
        int,
        typer.Option("--texts-per-request", help="As a list.", min=1, max=MAX_PER_REQUEST),
    ] = 1,
    texts: Annotated[
        str | None,
        typer.Option(help="One text per line, UTF-8; `-` for stdin. Else 96 of ours, all lengths."),
    ] = None,
    paths: Annotated[
        list[str] | None,
        typer.Option("--path", help="In the place of the dialect's own path; as --dialect."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="The model's name, which kserve and oip need; as --dialect."),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            help="Sent as a bearer token; as --dialect. Without it only servers of our own "
            "dialect get $RAYCLASSIFY_KEY.",
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", help="An answer that takes longer is lost.", min=0.1)
    ] = 60.0,
    format_: FormatOption = None,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it too: a .svg, .png or .pdf file.")
    ] = None,
) -> None:
    """Measure running servers under the same loads, in turns: answers a second and latency.

    Each server is asked one text first, and its label is shown: a server that is not there, speaks
    another dialect or wants a key ends the command before any load. The start of each run does not
    count. Ctrl-C ends early with what is known so far.

    The client takes a part of this machine too: `client` says how much of a core. From 0.8 on it
    may be the client that was measured, and a warning says so.

    Examples:

    - `rayclassify bench http://127.0.0.1:8000`

    - `rayclassify bench http://old:8080 http://new:8000 --dialect tei --rates 50,100 --plot a.svg`
    """
    form = chosen(format_, as_json)
    levels = _levels(connections, rates)
    _check_plot(plot)
    targets = _targets(urls, dialects, paths, models, keys)
    asked = _texts(texts)
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

    from deployments.bench.run import Plan, measure
    from deployments.bench.target import BadTarget

    labels = []
    for target in targets:
        try:
            labels.append(target.probe(asked[:texts_per_request], timeout_s))
        except BadTarget as exc:
            typer.echo(f"error: {exc}", err=True)
            raise typer.Exit(UNREACHABLE) from None
        say.print(f"{target.name}: the first text is {labels[-1]!r}")
    in_all_s = len(levels) * len(targets) * duration_s
    say.print(f"{len(asked)} texts, {in_all_s:.0f} s in all; Ctrl-C ends it early.")
    results: list[Result] = []
    stopped = False
    try:
        plan = Plan(asked, texts_per_request, duration_s, timeout_s)
        for result in measure(targets, levels, plan):
            results.append(result)
            say.print(_line(result))
    except KeyboardInterrupt:
        stopped = True
        say.print("Stopped: this is what was known by then.")
    _print(form, targets, labels, results, len(asked), stopped)
    if plot is not None and results:
        from deployments.bench.plot import plot as draw

        draw(results, plot)
        say.print(f"{plot} written")
    for result in results:
        if result.doubt is not None:
            say.print(
                f"warning: {result.level}, {result.dialect} {result.url}: {result.doubt}, so the "
                "server may be better. Ask from another machine, or more texts a request."
            )
    if not results or any(result.p50_ms is None for result in results):
        raise typer.Exit(NO)


def _levels(connections: str | None, rates: str | None) -> list[Level]:
    from deployments.bench.client import MAX_CONNECTIONS
    from deployments.bench.run import Level

    if connections is None:
        connections = "" if rates else "1,4,16,64"
    counts = _numbers(connections, "--connections", int)
    if any(not 1 <= n <= MAX_CONNECTIONS for n in counts):
        raise typer.BadParameter(
            f"{connections}; from 1 to {MAX_CONNECTIONS}.", param_hint="--connections"
        )
    per_s = _numbers(rates or "", "--rates", float)
    if any(not 0 < rate < 1e6 for rate in per_s):
        raise typer.BadParameter(f"{rates}; above 0.", param_hint="--rates")
    if not counts and not per_s:
        raise typer.BadParameter("name one at least, as 16.", param_hint="--connections")
    return [*(Level(connections=n) for n in counts), *(Level(rate_per_s=rate) for rate in per_s)]


def _numbers(listed: str, option: str, kind: Any) -> list[Any]:
    try:
        return [kind(one) for one in listed.split(",") if one.strip()]
    except ValueError:
        raise typer.BadParameter(
            f"{listed} is no list of numbers, as 1,4,16.", param_hint=option
        ) from None


def _check_plot(plot: Path | None) -> None:
    """Before the load, not after it."""
    if plot is None:
        return
    if plot.suffix not in _PLOTS:
        raise typer.BadParameter(
            f"{plot} is none of {', '.join(sorted(_PLOTS))}.", param_hint="--plot"
        )
    if not plot.parent.is_dir():
        raise typer.BadParameter(f"{plot.parent} is no directory.", param_hint="--plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise typer.BadParameter(
            f"needs matplotlib. Install it: {installing('plots')}.", param_hint="--plot"
        ) from None


def _targets(
    urls: list[str],
    dialects: list[str] | None,
    paths: list[str] | None,
    models: list[str] | None,
    keys: list[str] | None,
) -> list[Target]:
    from deployments.bench.dialects import DIALECTS
    from deployments.bench.target import BadTarget, Target

    for url in urls:
        if not _is_address(url):
            raise typer.BadParameter(
                f"{url} is no address. Write it as http://HOST:8000.", param_hint="URL"
            )
    for dialect in dialects or []:
        if dialect not in DIALECTS:
            raise typer.BadParameter(
                f"{dialect}; there are {', '.join(DIALECTS)}.", param_hint="--dialect"
            )
    rows = zip(
        urls,
        _each(dialects or ["ours"], urls, "--dialect"),
        _each(paths or [None], urls, "--path"),
        _each(models or [None], urls, "--model"),
        _each(keys or [None], urls, "--key"),
        strict=True,
    )
    # A key of our service is no other server's business, unless somebody says so.
    known = os.environ.get("RAYCLASSIFY_KEY")
    targets = [
        Target(url, dialect, path, model, key or (known if dialect == "ours" else None))
        for url, dialect, path, model, key in rows
    ]
    try:
        for target in targets:
            _ = target.full_path
    except BadTarget as exc:
        raise typer.BadParameter(str(exc), param_hint="--model") from None
    return targets


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _each(values: list[Any], urls: list[str], option: str) -> list[Any]:
    if len(values) not in (1, len(urls)):
        raise typer.BadParameter(
            f"{len(values)} for {len(urls)} URLs: give one for all, or one for each.",
            param_hint=option,
        )
    return values * len(urls) if len(values) == 1 else values


def _texts(file: str | None) -> list[str]:
    if file is None:
        from deployments.model.probe import probe_texts

        return probe_texts()
    found = read_lines(file, MAX_TEXTS)
    if not found:
        raise typer.BadParameter(f"{file} holds no text.", param_hint="--texts")
    return found


def _line(result: Result) -> str:
    said = f"  {result.level}, {result.dialect} {result.url}: {result.requests_per_s:,.1f} req/s"
    if result.p99_ms is not None:
        said += f", p99 {result.p99_ms:,.1f} ms"
    return f"{said}, failed: {_failed(result)}" if result.failed else said


def _failed(result: Result) -> str:
    return " ".join(f"{name}×{n}" for name, n in sorted(result.failed.items()))


def _print(
    form: Format,
    targets: Sequence[Target],
    labels: Sequence[str],
    results: Sequence[Result],
    n_texts: int,
    stopped: bool,
) -> None:
    if form is Format.table:
        out = Console(highlight=False)
        for number, target in enumerate(targets, 1) if len(targets) > 1 else ():
            out.print(f"{number}: {target.name}", markup=False, soft_wrap=True)
        if results:
            out.print(_table(results, len(targets)))
        return
    rows = [result.to_json() for result in results]
    if form is Format.csv:
        from deployments.bench.run import Result as Row

        print_csv(
            Row.__dataclass_fields__,
            [{**row, "failed": _failed(one)} for row, one in zip(rows, results, strict=True)],
        )
        return
    servers = [
        {"url": one.url, "dialect": one.dialect, "path": one.full_path, "first_label": label}
        for one, label in zip(targets, labels, strict=True)
    ]
    ended_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print_json(
        {
            "ended_at": ended_at,
            "texts": n_texts,
            "stopped": stopped,
            "servers": servers,
            "results": rows,
        }
    )


def _table(results: Sequence[Result], n_servers: int) -> Table:
    """A row a result. They come in turns, so the number of the server is known by the place."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("load", no_wrap=True)
    if n_servers > 1:
        table.add_column("server", no_wrap=True)
    for name in ("req/s", "texts/s", "p50 ms", "p95 ms", "p99 ms", "client"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("failed" if any(one.failed for one in results) else "", style="red")
    for place, one in enumerate(results):
        number = place % n_servers
        latencies = (one.p50_ms, one.p95_ms, one.p99_ms)
        table.add_row(
            "" if number else str(one.level),
            *([f"{number + 1} {one.dialect}"] if n_servers > 1 else []),
            f"{one.requests_per_s:,.1f}",
            f"{one.texts_per_s:,.1f}",
            *("–" if ms is None else f"{ms:,.1f}" for ms in latencies),
            f"{one.client_cpu:.2f}",
            _failed(one),
        )
    return table
