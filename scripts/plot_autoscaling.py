"""The picture of autoscaling: load, Classifiers, busy share and p99 over time, of a real run.

The run: `python scripts/torture.py autoscaling`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts.bench.store import Store
from tests.trials.plots import draw_autoscaling

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main(
    run: Annotated[Path, typer.Option(help="JSON of the trial.")] = DOCS / "reliability.json",
    folder: Annotated[Path, typer.Option(help="Where the SVGs go.")] = DOCS / "images",
) -> None:
    """Draw what the autoscaling trial measured, for light and for dark pages."""
    part = Store(run).modes.get("autoscaling")
    if not part or not part.get("figures", {}).get("series"):
        typer.echo(f"{run} has no autoscaling run: python scripts/torture.py autoscaling", err=True)
        raise typer.Exit(1)
    for path in draw_autoscaling(part, folder):
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
