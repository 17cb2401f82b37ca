"""Does the drift alarm keep its promise? Windows of the baseline's own kind, and of other kinds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from deployments.optimise.drifting import Seen, baseline, see
from deployments.pipeline.drift import baseline_of, psi

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


def texts_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="A model's directory.")],
    same: Annotated[list[Path], typer.Option(help="Tables of the baseline's kind, unseen.")],
    other: Annotated[list[Path], typer.Option(help="Tables of other kinds.")],
    draws: Annotated[int, typer.Option(help="Windows of each kind.")] = 100,
    n: Annotated[int, typer.Option(help="Texts in a window.")] = 500,
    m: Annotated[int, typer.Option(help="Texts in a baseline.")] = 1_000,
    rate: Annotated[float, typer.Option(help="Of false alarms.")] = 0.001,
) -> None:
    """Each draw makes a new baseline of `m` texts, and a window of `n` others.

    Example: `python scripts/drift_trial.py models/demo --same a.csv --other b.csv`
    """
    rng = np.random.default_rng(17)
    engine = {"name": "torch", "dtype": "float32"}
    texts = [text for path in same for text in texts_of(path)]
    seen = see(model, engine, texts)
    total = len(seen.values["labels"])
    typer.echo(f"{model}: {total:,} texts of its own kind, baseline {m:,}, window {n:,}")
    kinds: dict[str, Seen] = {path.stem: see(model, engine, texts_of(path)) for path in other}
    for name in ("its own kind", *kinds):
        alarms: dict[str, int] = {}
        indices: dict[str, list[float]] = {}
        any_alarm, by_chance = 0, 0
        for _ in range(draws):
            order = rng.permutation(total)
            content, _ = baseline(_rows(seen, order[:m]), rate)
            made = baseline_of(_json(content), seen.names)
            assert made is not None  # noqa: S101 - it was just made
            window = (
                _rows(seen, order[m : m + n])
                if name not in kinds
                else _rows(kinds[name], rng.permutation(len(kinds[name].values["labels"]))[:n])
            )
            moved = chance = False
            for feature, one in made.features.items():
                counts = made.count(feature, window.values[feature])
                found, n_now = psi(one.counts, counts), int(counts.sum())
                indices.setdefault(feature, []).append(found)
                alarms[feature] = alarms.get(feature, 0) + (found > one.threshold(n_now))
                moved |= found > one.threshold(n_now)
                chance |= found > one.critical * (1 / n_now + 1 / m)
            any_alarm += moved
            by_chance += chance
        typer.echo(
            f"{name}: {any_alarm:,} of {draws:,} alarm; {by_chance:,} by chi-squared alone; "
            + "; ".join(
                f"{f} {alarms[f]:,}, median index {np.median(indices[f]):.3f}" for f in indices
            )
        )


def _rows(seen: Seen, rows: Any) -> Seen:
    return Seen({k: v[rows] for k, v in seen.values.items()}, seen.names, seen.unknown_id)


def _json(content: dict[str, Any]) -> str:
    import json

    return json.dumps(content)


if __name__ == "__main__":
    app()
