"""`rayclassify tune`: the engine, replicas and batch size that suit a machine and its texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deployments import installing
from deployments.cli.check import DEFAULT_CONFIG, ConfigPath, checked_config
from deployments.cli.classify import read_lines
from deployments.cli.exit_codes import NO, WRONG

if TYPE_CHECKING:
    from deployments.pipeline.types import Encoded
    from deployments.settings import Settings
    from deployments.tuning.choice import Result
    from deployments.tuning.measure import Workload
    from deployments.tuning.search import Search

MAX_TEXTS = 2_000
"""More change nothing, and every replica holds them."""
FEW_TEXTS = 50
# An engine that is this much slower than the fastest never catches up by another batch size.
_HOPELESS = 0.4


def tune(
    texts: Annotated[
        str, typer.Argument(metavar="TEXTS", help="One text per line, UTF-8; `-` for stdin.")
    ],
    config: ConfigPath = DEFAULT_CONFIG,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the tuned config goes.")
    ] = Path("tuned.yaml"),
    plot: Annotated[
        Path | None, typer.Option(help="Draw what was measured: a .svg or .png file.")
    ] = None,
    target_p99_ms: Annotated[
        float | None,
        typer.Option("--target-p99-ms", min=0.001, help="Most throughput within this latency."),
    ] = None,
    connections: Annotated[
        int, typer.Option(help="Callers, each with one text at a time.", min=1)
    ] = 64,
    cores: Annotated[
        int | None,
        typer.Option(help="Leave the others to something else; default: all there are.", min=1),
    ] = None,
    budget_s: Annotated[
        float, typer.Option("--budget-s", help="How long the runs may take together.", min=1)
    ] = 180.0,
) -> None:
    """Find the engine, threads, replicas and batch size that suit this machine and your texts.

    Runs the real engines and the real queue under load, without HTTP. What CONFIG fixes (engine
    name, dtype, device) stays; Ctrl-C ends early with what is known so far. Writes a copy of
    CONFIG with the chosen values, which `rayclassify serve` and `serve run` take.

    Example: `rayclassify tune reviews.txt --target-p99-ms 200`
    """
    loaded = checked_config(config)
    app, settings = _our_application(loaded, config)
    if plot is not None and plot.suffix not in {".svg", ".png"}:
        raise typer.BadParameter(f"{plot} is neither .svg nor .png.", param_hint="--plot")
    for path, option in ((output, "--output"), (plot, "--plot")):
        if path is not None and not path.parent.is_dir():
            raise typer.BadParameter(f"{path.parent} is no directory.", param_hint=option)
    lines = read_lines(texts, MAX_TEXTS)

    from deployments.engines.machine import cpu_count

    # transformers' own bars would run through ours; it reads this when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    cores = min(cores or cpu_count(), cpu_count())
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    encoded = _encoded(lines, settings)
    results, failures, stopped = _search(
        encoded, settings, target_p99_ms, connections, cores, budget_s, err
    )
    if stopped:
        err.print("Stopped: this is what was known by then.")
    for reason in failures:
        err.print(reason, soft_wrap=True, markup=False)
    if not results:
        _fail("nothing could be measured." if not stopped else "stopped before the first result.")

    from deployments.tuning.choice import choose
    from deployments.tuning.config import tuned

    chosen = choose(results, target_p99_ms)
    out.print(_table(results, chosen))
    if target_p99_ms is not None and chosen.p99_ms > target_p99_ms:
        err.print(
            f"no setup keeps p99 within {target_p99_ms:g} ms under {connections} connections; "
            f"the nearest has {chosen.p99_ms:.0f}. Fewer --connections, more cores, or a smaller "
            "model would.",
            soft_wrap=True,
        )
    written = tuned(
        config.read_text(encoding="utf-8"),
        app.get("name", "default"),
        chosen.setup,
        target_p99_ms,
        cores,
    )
    output.write_text(written, encoding="utf-8")
    checked_config(output)
    if plot is not None:
        _plot(results, chosen, target_p99_ms, f"{settings.model.id}, {cores} cores", plot, err)
    out.print(f"{output} written. Next: rayclassify serve {output}", soft_wrap=True, markup=False)


def _our_application(config: dict[str, Any], path: Path) -> tuple[dict[str, Any], Settings]:
    from deployments.config.check import BUILDER
    from deployments.settings import Settings

    for app in config.get("applications", []):
        if app.get("import_path") == BUILDER:
            settings = Settings.model_validate(app.get("args") or {})
            if settings.engine.name != "none":
                return app, settings
            typer.echo("args.engine.name is none: no model, nothing to tune. Set auto.", err=True)
            raise typer.Exit(WRONG)
    typer.echo(f"{path}: no application has import_path: {BUILDER}.", err=True)
    raise typer.Exit(WRONG)


def _encoded(lines: Sequence[str], settings: Settings) -> Encoded:
    from deployments.model.load import load_parts
    from deployments.model.source import ModelNotFound
    from deployments.pipeline.types import TextInput

    if not lines:
        _fail("no text was given: the input is empty.")
    if len(lines) < FEW_TEXTS:
        typer.echo(
            f"warning: {len(lines)} texts say little about the lengths to come; "
            f"give {FEW_TEXTS} or more.",
            err=True,
        )
    try:
        encoder = load_parts(settings.model).encoder()
    except (ModelNotFound, ValueError) as exc:
        _fail(" ".join(str(exc).split()))
    batch = encoder.encode([TextInput(line) for line in lines]).batch
    if not len(batch):
        _fail("none of the texts has anything that the model reads.")
    return batch


def _search(
    texts: Encoded,
    settings: Settings,
    target_p99_ms: float | None,
    connections: int,
    cores: int,
    budget_s: float,
    err: Console,
) -> tuple[list[Result], list[str], bool]:
    """Results, what gave none and why, and whether it was stopped early."""
    from deployments.tuning.measure import Workload
    from deployments.tuning.search import Search, layouts, setups

    load = Workload(settings.model, settings.engine, texts, connections, target_p99_ms)
    failures: list[str] = []
    search: Search | None = None
    stopped = False
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, redirect_stdout=False) as progress:
        try:
            task = progress.add_task("engines against float32", total=None)
            dtypes = _dtypes(load, cores, failures)
            search = Search(setups(dtypes, layouts(cores), load), load, budget_s)
            for setup in search.run():
                progress.update(
                    task,
                    description=f"{setup}, {setup.max_batch_tokens} tokens",
                    total=search.n_planned,
                    completed=search.n_done,
                )
        except KeyboardInterrupt:
            stopped = True
    if search is None:
        return [], failures, stopped
    failures += sorted({f"{setup}: {reason}" for setup, reason in search.failures.items()})
    return list(search.results.values()), failures, stopped


def _dtypes(load: Workload, cores: int, failures: list[str]) -> list[str]:
    """Precisions worth measuring under load: they agree with float32, and aren't hopelessly
    slow."""
    from deployments.engines import isolation
    from deployments.engines.auto import candidates

    try:
        dtypes = candidates(load.engine)
    except ValueError as exc:
        _fail(str(exc))
    if len(dtypes) == 1:
        return dtypes
    rows = isolation.measure(load.model, load.engine, cores, dtypes)
    fastest = max((row.speed for row in rows if row.agrees), default=0.0)
    failures += [f"torch {row.dtype}: {row.verdict}" for row in rows if not row.agrees]
    able = [row for row in rows if row.agrees and row.speed >= _HOPELESS * fastest]
    able.sort(key=lambda row: -row.speed)  # the most promising first, if time should run out
    failures += [
        f"torch {row.dtype}: left out, {row.speed:.3g} texts/s on the probe where the fastest has "
        f"{fastest:.3g}"
        for row in rows
        if row.agrees and row not in able
    ]
    return [row.dtype for row in able]


def _table(results: Sequence[Result], chosen: Result) -> Table:
    from deployments.tuning.choice import pareto_front

    front = pareto_front(results)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("engine", "dtype"):
        table.add_column(name, no_wrap=True)
    for name in ("replicas", "threads", "batch tokens", "texts/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for result in sorted(results, key=lambda r: -r.texts_per_s):
        setup = result.setup
        mark = "chosen" if result is chosen else "front" if result in front else ""
        table.add_row(
            mark,
            "torch",
            setup.dtype,
            str(setup.replicas),
            str(setup.num_threads),
            str(setup.max_batch_tokens),
            f"{result.texts_per_s:,.3g}"
            if result.texts_per_s < 100
            else f"{result.texts_per_s:,.0f}",
            f"{result.p50_ms:,.1f}",
            f"{result.p99_ms:,.1f}",
            style="bold green" if result is chosen else "" if result in front else "dim",
        )
    return table


def _plot(
    results: Sequence[Result],
    chosen: Result,
    target_p99_ms: float | None,
    title: str,
    path: Path,
    err: Console,
) -> None:
    from deployments.tuning.plot import plot

    try:
        plot(results, chosen, target_p99_ms, title, path)
    except ImportError:
        err.print(
            f"no plot: matplotlib is not installed. Install it: {installing('plots')}.",
            soft_wrap=True,
            markup=False,
        )


def _fail(message: str) -> Any:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(NO)
