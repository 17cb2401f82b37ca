"""How right models are on a labelled table, each in the precision that it is served in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.optimise.labelled import read_labelled
from deployments.optimise.report import log_x
from deployments.optimise.running import score_texts
from deployments.optimise.statistics import scores

from .beside import Candidate, Rates
from .plots import Theme


def judged(candidates: Sequence[Candidate], table: Path) -> list[dict[str, Any]]:
    """Of each: macro-F1 with its 95 % interval, and on how many texts it agrees with the first.

    Raises:
        BadTable, BadData: see `read_labelled`.
        CandidateFailed: one can't run here.
    """
    rows = read_labelled(str(table))
    found: list[dict[str, Any]] = []
    first: list[str] = []
    for candidate in candidates:
        scored = score_texts(candidate.model, candidate.engine, rows.texts)
        places = {label: i for i, label in enumerate(scored.labels)}
        best = np.asarray(scored.logits).argmax(1)
        gold = np.asarray([places[label] for label in rows.labels])
        f1 = scores(gold, best, len(places)).macro_f1
        said = [scored.labels[i] for i in best]
        first = first or said
        found.append(
            {
                "macro_f1": f1.value,
                "low": f1.low,
                "high": f1.high,
                "agreement": float(np.mean([a == b for a, b in zip(said, first, strict=True)])),
                "texts": len(rows),
            }
        )
    return found


def as_json(
    found: Sequence[Rates], figures: Sequence[dict[str, Any]], title: str
) -> dict[str, Any]:
    """What `plot_models.py` draws."""
    return {
        "title": title,
        "models": [
            {
                "name": one.name,
                "engine": one.engine,
                "requests_per_s": {str(n): one.rate(n) for n in one.rates},
                **figure,
            }
            for one, figure in zip(found, figures, strict=True)
        ],
    }


def markdown(found: Sequence[Rates], figures: Sequence[dict[str, Any]]) -> str:
    """A table of what they keep of the first one's macro-F1."""
    lines = [["model", "engine", "macro-F1", "kept", "agreement"], ["---"] * 5]
    for one, figure in zip(found, figures, strict=True):
        lines.append(
            [
                one.name,
                one.engine,
                f"{figure['macro_f1']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]",
                f"{figure['macro_f1'] / figures[0]['macro_f1']:.1%}",
                f"{figure['agreement']:.1%}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(parts: Sequence[dict[str, Any]], connections: int, theme: Theme) -> Any:
    """One panel a table: requests/s through the service against macro-F1, with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(parts), 4.2), layout="constrained")
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, part in zip(panels, parts, strict=True):
        for i, one in enumerate(part["models"]):
            rate, f1 = one["requests_per_s"][str(connections)], one["macro_f1"]
            axes.errorbar(
                [rate],
                [f1],
                yerr=[[f1 - one["low"]], [one["high"] - f1]],
                fmt="osD^v"[i % 5],
                color=theme.series[i % len(theme.series)],
                capsize=3,
            )
            # Upright: models that are near each other in speed are many.
            axes.annotate(
                f"{one['name']} {one['engine'].removeprefix('torch ')}",
                (rate, one["high"]),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90,
                fontsize=8,
                color=theme.text,
            )
        log_x(axes)
        axes.margins(x=0.3)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.6 * (high - low))
        axes.set_title(part["title"])
        axes.set_xlabel(f"requests/s, {connections} connections")
    panels[0].set_ylabel("macro-F1, 95 % interval")
    return figure
