"""The doctor's findings as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from deployments.engines.machine import SHARED_MEMORY
from deployments.engines.measurement import Measured
from deployments.settings import Settings


class Show:
    """Prints as soon as something is known. quiet: prints nothing but progress."""

    def __init__(self, quiet: bool) -> None:
        self._out = Console(quiet=quiet, highlight=False)
        self._err = Console(stderr=True)

    def machine(self, facts: dict[str, Any]) -> None:
        cpu, memory = facts["cpu"], facts["memory"]
        rows = self._section("Machine")
        rows.add_row("CPU", cpu["model"])
        rows.add_row("instructions", ", ".join(cpu["features"]) or "unknown")
        rows.add_row("cores", _cores(cpu))
        if cpu["load_1min"] is not None and cpu["load_1min"] > 0.5 * cpu["usable_cpus"]:
            busy = f"load {cpu['load_1min']:.1f}: other work disturbs what is measured below"
            rows.add_row("", Text(busy, style="yellow"))
        limit = memory["limit_bytes"]
        total = _gb(min(limit or memory["total_bytes"], memory["total_bytes"]))
        container = " (the container's limit)" if limit and limit < memory["total_bytes"] else ""
        rows.add_row("memory", f"{_gb(memory['available_bytes'])} free of {total}{container}")
        shared = memory["shared_bytes"]
        rows.add_row(str(SHARED_MEMORY), "none" if shared is None else f"{_gb(shared)} free")
        gpus = [f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" for gpu in facts["gpus"]]
        rows.add_row("GPUs", "\n".join(gpus) or "none")
        rows.add_row("proxy", facts["proxy"].removeprefix("HAProxy ingress: "))
        self._out.print(rows)

        rows = self._section("Packages")
        rows.add_row("Python", facts["python"])
        for name, version in facts["packages"].items():
            rows.add_row(name, version or Text("not installed", style="red"))
        for name, extra in facts["extras"].items():
            versions = [f"{k} {v}" for k, v in extra["packages"].items() if v]
            missing = [k for k, v in extra["packages"].items() if not v]
            shown = Text(", ".join(versions) if extra["installed"] else "not installed")
            if extra["installed"] and missing:
                shown.append(f" (without {', '.join(missing)})", style="yellow")
            rows.add_row(f"extra {name}", shown)
        self._out.print(rows)

    def peaks(self, peaks: dict[str, float | None], num_threads: int) -> None:
        rows = self._section(
            f"Matrix products, {_threads(num_threads)}, 512 × 768 × 3072, the best of many"
        )
        for name, gflops in peaks.items():
            rows.add_row(name, "not here" if gflops is None else f"{gflops:,.0f} GFLOP/s")
        self._out.print(rows)

    def pick(self, settings: Settings, num_threads: int, why: str, rows: list[Measured]) -> None:
        engine = settings.engine
        self._heading("Engine")
        asked = f"name: {engine.name}, dtype: {engine.dtype}, device: {engine.device}"
        self._line(f"{settings.model.id} with {asked}, {_threads(num_threads)}")
        if rows:
            self._out.print(_engines(rows))
        self._line(f"→ {why}", style="bold")
        if rows and rows[0].chosen:
            name, dtype = rows[0].candidate.name, rows[0].candidate.dtype
            self._line(
                f"To start without measuring anywhere, set name: {name} and dtype: {dtype} under "
                "args.engine."
            )

    def advice(self, lines: list[str]) -> None:
        if lines:
            self._heading("What else there is")
        for line in lines:
            self._line(line)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        if not self._err.is_terminal:
            yield
            return
        with self._err.status(what):
            yield

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[Measured], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns,
            TimeElapsedColumn(),
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
            redirect_stdout=False,
        ) as bar:
            task = bar.add_task(what, total=total)

            def on_row(row: Measured) -> None:
                bar.update(task, advance=1, description=f"{what}: {row.candidate} done")

            yield on_row

    def _section(self, title: str) -> Table:
        self._heading(title)
        table = Table(box=None, show_header=False, pad_edge=True)
        table.add_column(style="dim", no_wrap=True, min_width=16)
        table.add_column(overflow="fold")
        return table

    def _line(self, line: str, style: str = "") -> None:
        self._out.print(Padding(Text(line, style=style), (0, 0, 0, 1)))

    def _heading(self, title: str) -> None:
        self._out.print()
        self._out.print(Text(title, style="bold"))


def _engines(rows: list[Measured]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("engine", no_wrap=True)
    for name in ("texts/s", "max drift", "same labels"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in rows:
        style = "bold green" if row.chosen else "" if row.agrees else "dim"
        table.add_row(
            str(row.candidate),
            _shown(row.texts_per_s, "{:.3g}"),
            _shown(row.max_drift, "{:.2g}"),
            _shown(row.label_agreement, "{:.1%}"),
            Text(row.verdict),
            style=style,
        )
    return table


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _cores(cpu: dict[str, Any]) -> str:
    parts = [f"{cpu['cores']}"]
    if cpu["allowed_cores"] != cpu["cores"]:
        parts.append(f"this process may use {cpu['allowed_cores']}")
    if cpu["quota_cpus"] is not None:
        parts.append(f"the container's quota is {cpu['quota_cpus']:g}")
    return "; ".join(parts)


def _shown(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
