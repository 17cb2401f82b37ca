"""The panels as pictures, of a Prometheus' data, where there is no Grafana to draw them."""

from __future__ import annotations

import re
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.bench.plots import Theme, draw_all

from .panels import DASHBOARD, Panel, asked
from .prometheus import Prometheus

STEP_S = 5.0
_COLUMNS = 3
_NAMED = re.compile(r"{{(\w+)}}")
_SHOWN = 6  # series of a panel in its legend
_MORE_COLOURS = ("#8250df", "#bf3989", "#9a6700", "#1b7c83", "#57606a")


def draw(source: Prometheus, folder: Path, minutes: float = 60.0) -> list[Path]:
    """`monitoring-light.svg` and `monitoring-dark.svg`: every panel, as long as there is data."""
    end = time.time()
    up = source.series("count(ray_rayclassify_busy_ratio)", end - 60 * minutes, end, STEP_S)
    start = float(up[0]["values"][0][0]) if up else end - 60 * minutes
    found = {
        panel.title: _series(source, panel, start, end)
        for panels in DASHBOARD.values()
        for panel in panels
    }
    fired = [
        times
        for one in source.series('ALERTS{alertstate="firing"}', start, end, STEP_S)
        for times in _runs([at for at, _ in one["values"]])
    ]
    return draw_all(
        {"monitoring": partial(_figure, found, fired, start)},
        folder,
        **{"lines.marker": "", "lines.linewidth": 1.2, "axes.titlesize": 8},
    )


Lines = list[tuple[str, list[float], list[float]]]
"""Legend, seconds since 1970, values."""


def _series(source: Prometheus, panel: Panel, start: float, end: float) -> Lines:
    lines: Lines = []
    for query, legend in panel.queries.items():
        for one in source.series(asked(query), start, end, STEP_S):
            name = _NAMED.sub(partial(_label, one["metric"]), legend)
            pairs = [(at, float(value)) for at, value in one["values"]]
            lines.append((name, [at for at, _ in pairs], [value for _, value in pairs]))
    return lines


def _runs(moments: list[float]) -> list[tuple[float, float]]:
    """First and last moment of each run of moments that are one step apart."""
    starts = [at for before, at in pairwise([-STEP_S, *moments]) if at - before > 1.5 * STEP_S]
    ends = [at for at, after in pairwise([*moments, float("inf")]) if after - at > 1.5 * STEP_S]
    return [*zip(starts, ends, strict=True)]


def _label(metric: dict[str, str], found: re.Match[str]) -> str:
    return metric.get(found[1], "")


def _figure(
    found: dict[str, Lines], fired: list[tuple[float, float]], start: float, theme: Theme
) -> Any:
    import matplotlib.pyplot as plt

    rows = len(DASHBOARD)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(13, 2.5 * rows), sharex=True)
    colours = (*theme.series, *_MORE_COLOURS)
    for row, (section, panels) in enumerate(DASHBOARD.items()):
        for column, panel in enumerate(panels):
            axes = grid[row][column]
            for i, (name, at, values) in enumerate(found[panel.title]):
                minutes = [(one - start) / 60 for one in at]
                label = name if i < _SHOWN else None
                axes.plot(minutes, values, color=colours[i % len(colours)], label=label)
            axes.set_title(f"{panel.title} ({_UNITS[panel.unit]})", loc="left", fontsize=8)
            axes.set_ylim(bottom=0)
            axes.tick_params(labelsize=7)
            if found[panel.title]:
                axes.legend(fontsize=6, loc="upper left", framealpha=0.6)
            for first, last in fired:
                times = (first - start) / 60, (last - start) / 60
                axes.axvspan(*times, color=theme.other, alpha=0.12, linewidth=0)
        grid[row][0].set_ylabel(section, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("minutes", fontsize=7)
    figure.tight_layout()
    return figure


_UNITS = {
    "reqps": "requests/s",
    "s": "seconds",
    "short": "number",
    "percentunit": "share",
    "cps": "a second",
    "none": "",
}
