"""The picture of smaller and faster models: macro-F1 against requests/s through the service."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scripts.bench.judged import draw
from scripts.bench.plots import draw_all

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main(
    runs: Annotated[
        list[Path], typer.Argument(help="JSON of scripts/compare_models.py, a panel each.")
    ],
    connections: Annotated[int, typer.Option(help="One that was measured.")] = 64,
    folder: Annotated[Path, typer.Option(help="Where the SVGs go.")] = DOCS / "images",
) -> None:
    """Draw what was measured, for light and for dark pages.

    Example: `python scripts/plot_models.py docs/models-en.json docs/models-zh.json`
    """
    parts = [json.loads(run.read_text(encoding="utf-8")) for run in runs]
    for path in draw_all({"models": partial(draw, parts, connections)}, folder):
        typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
