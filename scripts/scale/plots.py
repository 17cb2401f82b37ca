"""The pictures of docs/scale.md, as SVG for light and for dark pages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench.plots import Theme, draw_all

LINES = {"lines.marker": "", "lines.linewidth": 1.5}
HOURS = np.arange(0, 24, 1 / 60)


def draw(modes: dict[str, Any], folder: Path) -> list[Path]:
    """`scale-validation` and `scale-day`, of what there is. Needs matplotlib (extra `plots`)."""
    plots = {}
    if "compared" in modes:
        plots["scale-validation"] = partial(_validation, modes["compared"])
    if "scenario" in modes:
        plots["scale-day"] = partial(_day, modes["scenario"])
    return draw_all(plots, folder, **LINES)


def _validation(compared: dict[str, Any], theme: Theme) -> Any:
    import matplotlib.pyplot as plt

    rows = [row for row in compared["fixed"] if "share" in row]
    figure, axes = plt.subplots(1, 3 if rows else 2, figsize=(11, 3.4))
    middle, right = axes[-2:]
    if rows:
        _latencies(axes[0], rows, theme)
    scaling = compared["scaling"]
    for name, colour in (("measured", theme.series[0]), ("simulated", theme.series[1])):
        middle.plot(scaling["running"][name], color=colour, label=name)
        points = [(one["at_s"], one[name]) for one in scaling["p50"]]
        right.plot(*zip(*points, strict=True), color=colour, label=name)
    middle.set_title("Classifiers that run")
    middle.set_xlabel("seconds")
    middle.legend(fontsize=8)
    right.set_title("p50 in steps of 5 s, ms")
    right.set_xlabel("seconds")
    right.set_yscale("log")
    return figure


def _latencies(axes: Any, rows: list[dict[str, Any]], theme: Theme) -> None:
    """Measured and simulated of each run; on the line they are equal."""
    for level, colour, mark in (("p50", theme.series[0], "o"), ("p99", theme.series[1], "s")):
        measured = [row[level]["measured"] for row in rows]
        simulated = [row[level]["simulated"] for row in rows]
        axes.plot(measured, simulated, mark, color=colour, markersize=5, label=level)
    ends = [min(row["p50"]["measured"] for row in rows), axes.get_xlim()[1]]
    axes.plot(ends, ends, color=theme.other, linewidth=1, label="equal")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("simulated, ms")
    axes.set_title("latency, 1 to 8 Classifiers")
    axes.legend(fontsize=8)


def _day(part: dict[str, Any], theme: Theme) -> Any:
    import matplotlib.pyplot as plt

    shown = [way for way in part["ways"] if way["minutes"]]
    figure, grid = plt.subplots(2, 2, figsize=(11, 6), sharex=True)
    (load, latency), (replicas, within) = grid
    load.plot(HOURS, np.array(shown[0]["minutes"]["rate_per_s"]) / 1e3, color=theme.ours)
    load.set_ylabel("thousand requests/s")
    load.set_title("load")
    for way, dash in zip(shown, ("-", "--"), strict=True):
        minutes = way["minutes"]
        for name, colour in zip(("Tokenizer", "Classifier"), theme.series, strict=False):
            label = f"{name}: {way['name']}"
            replicas.plot(HOURS, minutes[name], dash, color=colour, label=label)
        latency.plot(HOURS, minutes["p99_ms"], dash, color=theme.series[2], label=way["name"])
        within.plot(
            HOURS, 100 * np.array(minutes["within"]), dash, color=theme.series[2], label=way["name"]
        )
    replicas.set_title("replicas that run")
    replicas.set_xlabel("hour")
    replicas.legend(fontsize=7)
    latency.set_title("highest p99 of each minute, ms")
    latency.set_yscale("log")
    latency.legend(fontsize=7)
    within.set_title("answered within the aim, %")
    within.set_xlabel("hour")
    for axes in grid.flat:
        axes.set_xlim(0, 24)
        axes.set_xticks(range(0, 25, 4))
    return figure
