"""`rayclassify top`: what a service does just now, on a terminal, until Ctrl-C."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deployments.cli.classify import KeyOption
from deployments.cli.deploy import Address, AppName, fail, find, told
from deployments.cli.exit_codes import DONE, UNREACHABLE

if TYPE_CHECKING:
    from deployments.deploying.live_view import ClusterSource, ReplicaNow, UrlSource, View


def top(
    url: Annotated[
        str | None,
        typer.Argument(help="Of a service, where its cluster can't be asked; it tells less."),
    ] = None,
    address: Address = None,
    app: AppName = None,
    key: KeyOption = None,
    every_s: Annotated[
        float, typer.Option("--every-s", help="Seconds between two looks.", min=0.2)
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one view and end, as in a pipe.")
    ] = False,
) -> None:
    """What the service does just now: rates, latency by stage, batches, queue, replicas.

    It asks Ray's dashboard and the nodes' metrics endpoints, or, given a URL, the service itself.
    Endpoints change every 10 s, so numbers follow the load by some seconds. Ctrl-C ends it.

    Example: `rayclassify top http://127.0.0.1:8000`
    """
    import requests

    from deployments.deploying.dashboard import Dashboard
    from deployments.deploying.live_view import ClusterSource, UrlSource

    source: ClusterSource | UrlSource
    console = Console()
    try:
        with told():
            source = UrlSource(url, key) if url else ClusterSource(Dashboard(find(address)), app)
            _show(source, console, every_s, once or not console.is_terminal)
    except requests.RequestException as exc:
        fail(f"{url} can't be asked ({type(exc).__name__}).", UNREACHABLE)
    except KeyboardInterrupt:
        raise typer.Exit(DONE) from None


def _show(source: ClusterSource | UrlSource, console: Console, every_s: float, once: bool) -> None:
    if once:
        source.look()
        time.sleep(every_s)  # what is told a second needs two looks
        console.print(drawn(source.look(), console.height))
        return
    first = drawn(source.look(), console.height)
    with Live(first, console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            live.update(drawn(source.look(), console.height), refresh=True)


def drawn(view: View, height: int) -> RenderableType:
    """The view for a terminal of so many lines; replicas that find no room are counted."""
    parts: list[RenderableType] = [Text(view.title, style="bold")]
    parts += [Text(note, style="yellow") for note in view.notes]
    if view.numbers:
        parts.append(_numbers(view))
    if view.stages:
        parts.append(_stages(view))
    used = 8 + len(view.notes) + len(view.stages) + max(map(len, view.numbers.values()), default=0)
    if view.replicas:
        parts.append(_replicas(view.replicas, max(3, height - used)))
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold cyan")
    for column in columns:
        left = column in ("deployment", "replica", "state", "node", "stage", "gpu")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    return table


def _numbers(view: View) -> Table:
    """A column of names and values for each heading."""
    table = Table(box=None, pad_edge=False, header_style="bold cyan")
    for heading in view.numbers:
        table.add_column(heading, justify="left", no_wrap=True)
        table.add_column("", justify="right", no_wrap=True)
    columns = [list(numbers.items()) for numbers in view.numbers.values()]
    for n in range(max(map(len, columns))):
        cells = [column[n] if n < len(column) else ("", None) for column in columns]
        table.add_row(*(said for name, value in cells for said in (name, _number(value))))
    return table


def _stages(view: View) -> Table:
    table = _table("stage", "a second", "mean ms", "p50 ms", "p99 ms")
    for stage in view.stages:
        times = (stage.mean_s, stage.p50_s, stage.p99_s)
        table.add_row(stage.name, _number(stage.per_s), *(_number(s * 1e3) for s in times))
    return table


def _replicas(replicas: list[ReplicaNow], room: int) -> RenderableType:
    counted = Counter((replica.deployment, replica.state) for replica in replicas)
    said = ", ".join(f"{name} {n} {state}" for (name, state), n in counted.items())
    if not any(replica.name for replica in replicas):
        return Text(f"replicas: {said}")
    table = _table("deployment", "replica", "state", "node", "busy", "cpu", "memory", "gpu")
    for one in replicas[:room]:
        memory = "" if one.memory_bytes is None else f"{one.memory_bytes / 1e6:,.0f} MB"
        shares = (_share(one.busy), _share(one.cpu), memory)
        table.add_row(one.deployment, one.name, one.state, one.node, *shares, one.gpu)
    hidden = [Text(f"and {len(replicas) - room} more: {said}")] if len(replicas) > room else []
    return Group(table, *hidden)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    """Three digits, or whole; `-` where it is not known."""
    if value is None:
        return ""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
