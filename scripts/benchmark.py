"""Measure engines, service and peers; write docs/benchmark.json, tables and plots.

Everything runs on this machine, the client too: compare within one run only. Each figure is kept
as soon as it is measured; Ctrl-C stops what was started and keeps the figures.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments.engines.machine import cpu_count
from scripts.bench.load import WrkMissing
from scripts.bench.models import SHAPES
from scripts.bench.readme import write
from scripts.bench.report import IMAGES
from scripts.bench.session import Plan, Session
from scripts.bench.store import Store

ROOT = Path(__file__).resolve().parents[1]

DOCS = ROOT / "docs"
console = Console()
app = typer.Typer(add_completion=False)


def modes() -> dict[str, Callable[[Session], None]]:
    """Mode → what measures it. Imported late, for a quick --help."""
    from scripts.bench.bulk import measure_bulk
    from scripts.bench.choice import measure_choice
    from scripts.bench.modes import measure_growth, measure_openloop, measure_raw, measure_service
    from scripts.bench.versus import measure_peers

    return {
        "raw": measure_raw,
        "service": measure_service,
        "choice": measure_choice,
        "peers": measure_peers,
        "openloop": measure_openloop,
        "growth": measure_growth,
        "bulk": measure_bulk,
    }


@app.command()
def main(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODE]...",
            help="raw: engines in-process; service: what of that arrives over HTTP; peers: other "
            "servers; choice: what auto took beside each precision; openloop: latency under "
            "Poisson arrivals; growth: replicas, nodes, lengths; bulk: a table, by each way to "
            "label it. all by default. report: tables and plots again, from the JSON.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Runs of 4 seconds: a try.")] = False,
    duration_s: Annotated[float, typer.Option(help="Seconds of a run, at least.", min=1)] = 10.0,
    connections: Annotated[
        str, typer.Option(help="Open connections, one run each, separated by commas.")
    ] = "1,4,16,64,256",
    threads: Annotated[
        int | None, typer.Option(help="Of each engine and peer; all CPUs by default.", min=1)
    ] = None,
    shapes: Annotated[
        str, typer.Option(help="Models of raw and service, separated by commas.")
    ] = ",".join(SHAPES),
    peers: Annotated[str, typer.Option(help="Only these, by name, e.g. ray-chain,litserve.")] = "",
    rows: Annotated[int, typer.Option(help="Of the table that bulk labels.", min=100)] = 20_000,
    engine: Annotated[str, typer.Option(help="Of our service: auto or torch.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of our service: auto, float32 …")] = "auto",
    config: Annotated[Path, typer.Option(help="Serve config to measure.")] = ROOT
    / "serve_config.yaml",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting of our service, e.g. batching.min_gap_ms=1 or "
            "Classifier.max_batch_tokens=2048; repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip modes measured to their end with this commit.")
    ] = False,
    output: Annotated[Path, typer.Option(help="JSON to add to.")] = DOCS / "benchmark.json",
    against: Annotated[
        str | None,
        typer.Option(help="Only compare this checkout with another commit, both up at once."),
    ] = None,
) -> None:
    """Measure, then write tables and plots beside OUTPUT and the README's table.

    Examples: `python scripts/benchmark.py service --quick --set batching.min_gap_ms=1`;
    `python scripts/benchmark.py --against main`
    """
    plan = Plan(
        duration_s=4.0 if quick else duration_s,
        connections=tuple(int(count) for count in connections.split(",")),
        threads=threads or cpu_count(),
        engine=engine,
        dtype=dtype,
        shapes=tuple(shapes.split(",")),
        changes=tuple(setting or ()),
        config=config,
        only_peers=tuple(filter(None, peers.split(","))),
        rows=rows,
    )
    store = Store(output)
    session = Session(store, console, plan)
    stopped = False
    known = modes()
    todo = known if what in (None, [], ["all"]) else dict.fromkeys(what or ())
    if unknown := [*(set(todo) - {*known, "report"}), *(set(plan.shapes) - set(SHAPES))]:
        raise typer.BadParameter(f"{unknown[0]!r}; modes: {', '.join(known)}, report, all; "
                                 f"shapes: {', '.join(SHAPES)}")  # fmt: skip
    if shutil.which("wrk") is None and (against or set(todo) - {"raw", "bulk", "report"}):
        console.print(str(WrkMissing()))
        raise typer.Exit(1)
    if against is not None:
        from scripts.bench.against import compare

        for table in compare(session, against, quick):
            console.print(table)
        raise typer.Exit
    # As Ctrl-C: what was started ends in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in todo:
            if name != "report" and not (resume and store.is_done(name)):
                known[name](session)
    except KeyboardInterrupt:
        stopped = True
        console.print("Stopped; what was measured is kept.")
    finally:
        store.save()
        publish(store)
    raise typer.Exit(130 if stopped else 0)


def publish(store: Store) -> None:
    """Tables and plots out of what is in the store, beside its file."""
    docs = store.path.parent
    try:
        from scripts.bench.plots import draw

        draw(store.modes, docs / IMAGES)
    except ImportError:
        console.print("No plots without matplotlib: pip install -e '.[plots]'")
    # A run written elsewhere is nobody's business but its owner's.
    write(store.modes, docs, ROOT / "README.md" if docs == DOCS else None)
    console.print(f"{store.path}, {docs / 'benchmark.md'}, {docs / IMAGES}/", soft_wrap=True)


if __name__ == "__main__":
    app()
