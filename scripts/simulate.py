"""Simulate the service at scale; hold the simulation to real runs; write docs/scale.md's tables.

`measure` runs the real service on this machine, on devices that sleep, and takes ten minutes.
The rest needs no Ray cluster and takes one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments import installing
from deployments.planning.service_times import MEASURED
from scripts.bench.store import Store
from scripts.rendered import write_or_check

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MODES = ("measure", "simulate", "report")

console = Console()
app = typer.Typer(add_completion=False)


@app.command()
def main(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODE]...",
            help="measure: real runs on 1, 2, 4 and 8 devices that sleep. simulate: the same by "
            "formula, and a day of a million requests a second. report: tables and plots, from "
            "the JSON. simulate and report by default.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="JSON to add to.")] = DOCS / "scale.json",
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff if stale.")
    ] = False,
) -> None:
    """Simulate the service at scale, and say how far the simulation is off what was measured.

    Example: `python scripts/simulate.py measure simulate report`
    """
    asked = what or ["simulate", "report"]
    if unknown := set(asked) - set(MODES):
        raise typer.BadParameter(f"{min(unknown)!r}; modes: {', '.join(MODES)}")
    store = Store(output)
    if "measure" in asked:
        measure(store)
    if "simulate" in asked:
        simulate(store)
    if "report" in asked:
        report(store, output, check)


def measure(store: Store) -> None:
    """Keeps each run as it ends."""
    from scripts.scale.measure import measure_fixed, measure_scaling

    part = store.begin("fixed", {})
    part["runs"] = []
    for row in measure_fixed():
        part["runs"].append(row)
        store.save()
        console.print(f"{row['classifiers']} Classifiers: {row['answers_per_s']:.1f} answers/s")
    part["complete"] = True
    part = store.begin("scaling", {})
    part |= {**measure_scaling(), "complete": True}
    store.save()


def simulate(store: Store) -> None:
    from scripts.scale.compare import compared
    from scripts.scale.scenario import run

    part = store.begin("compared", {})
    trials = Store(DOCS / "reliability.json").modes
    growth = Store(DOCS / "benchmark.json").modes["growth"]
    found = compared(store.modes, trials["gpus"]["figures"], growth)
    part |= {**found, "complete": True}
    store.save()
    part = store.begin("scenario", {})
    part |= {**run(MEASURED), "complete": True}
    store.save()


def report(store: Store, output: Path, check: bool) -> None:
    from scripts.scale.page import blocks, rendered

    path = output.with_suffix(".md")
    text = rendered(path.read_text(encoding="utf-8"), blocks(store.modes, MEASURED))
    write_or_check(text, path, "scripts/simulate.py", check=check)
    if check:
        return
    try:
        from scripts.scale.plots import draw

        draw(store.modes, output.parent / "images")
    except ImportError:
        console.print(f"No plot: matplotlib is not installed; {installing('plots')} brings it.")


if __name__ == "__main__":
    app()
