"""How fast models are through the service, side by side in one run, and how right they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated

import typer

from deployments.engines.machine import cpu_count
from scripts.bench import judged
from scripts.bench.beside import Candidate, markdown, measure
from scripts.bench.session import Plan


def main(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Directories. DIR:dtype fixes a precision; without it the service chooses. The "
            "others are held against the first."
        ),
    ],
    texts: Annotated[Path, typer.Option(help="A CSV with a column text, which load is made of.")],
    labelled: Annotated[
        Path | None, typer.Option(help="A labelled table: macro-F1 of each, as it is served.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--json", help="For scripts/plot_models.py; wants --labelled.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the plot's panel.")] = "",
    connections: Annotated[list[int] | None, typer.Option(help="Default: 1, 16 and 64.")] = None,
    turns: Annotated[int, typer.Option(min=1)] = 3,
    duration_s: Annotated[float, typer.Option(min=0.1, help="Of each model in a turn.")] = 4.0,
) -> None:
    """Compare models through the service. Give it a machine with nothing else to do.

    Example: `python scripts/compare_models.py ./large ./small ./large:int8 --texts texts.csv`
    """
    if output is not None and labelled is None:
        raise typer.BadParameter("wants --labelled, too.", param_hint="--json")
    candidates = [Candidate.of(one) for one in models]
    with texts.open(encoding="utf-8", newline="") as file:
        asked = [row["text"] for row in csv.DictReader(file)][:256]
    levels = tuple(connections or (1, 16, 64))
    plan = Plan(duration_s, levels, cpu_count())
    found = measure(candidates, asked, levels, turns, plan, lambda said: typer.echo(said, err=True))
    typer.echo(markdown(found))
    mean = sum(map(len, asked)) / len(asked)
    typer.echo(
        f"\n{len(asked)} texts of {mean:.0f} characters on average; medians of {turns} turns."
    )
    if labelled is None:
        return
    figures = judged.judged(candidates, labelled)
    typer.echo("\n" + judged.markdown(found, figures))
    if output is not None:
        told = judged.as_json(found, figures, title or labelled.stem)
        output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
