"""The plots, as SVG for light and for dark pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from .report import Modes, Part, best, caption, engine_of, precision_of

LENGTHS_SHOWN = (8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours that can be read on a page of this kind; its background is the page's own."""

    name: str
    text: str
    grid: str
    ours: str
    other: str
    series: tuple[str, ...]


THEMES = (
    Theme("light", "#1f2328", "#d1d9e0", "#0969da", "#9aa4af", ("#0969da", "#bc4c00", "#1a7f37")),
    Theme("dark", "#e6edf3", "#30363d", "#58a6ff", "#6e7681", ("#58a6ff", "#f0883e", "#3fb950")),
)


def draw(modes: Modes, folder: Path) -> list[Path]:
    """Draws what was measured; returns the files. Needs matplotlib (extra `plots`)."""
    plots = {name: partial(plot, modes[name]) for name, plot in PLOTS.items() if name in modes}
    return draw_all(plots, folder)


def draw_all(
    plots: Mapping[str, Callable[[Theme], Any]], folder: Path, **changes: Any
) -> list[Path]:
    """One file a plot and theme, of those that make a figure. changes: to the style."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, plot in plots.items():
        for theme in THEMES:
            with plt.rc_context(style(theme) | changes):
                figure = plot(theme)
                if figure is None:
                    continue
                path = folder / f"{name}-{theme.name}.svg"
                # No date, and ids that do not change: the same figures make the same file.
                figure.savefig(path, transparent=True, metadata={"Date": None})
                plt.close(figure)
                made.append(path)
    return made


def style(theme: Theme) -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "rayclassify",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 10,
        "text.color": theme.text,
        "axes.labelcolor": theme.text,
        "axes.titlecolor": theme.text,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.edgecolor": theme.grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "xtick.color": theme.text,
        "ytick.color": theme.text,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "lines.marker": "o",
        "lines.markersize": 4,
        "figure.constrained_layout.use": True,
    }


def _figure(columns: int, height: float, **kwargs: Any) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(9, height), squeeze=False, **kwargs)


def _caption(figure: Any, part: Part) -> None:
    figure.supxlabel(fill(caption(part), 150), fontsize=7, x=0.01, ha="left")


def _barh(axes: Any, labels: list[str], values: list[float], colours: list[str]) -> Any:
    """Horizontal bars, the first on top, each with its value behind it."""
    drawn = axes.barh(range(len(values)), values, color=colours, height=0.7)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.18)
    return drawn


def peers(part: Part, theme: Theme) -> Any:
    """Requests a second of everybody, fastest on top."""
    rows = sorted((row for row in part["rows"] if row.get("runs")), key=best, reverse=True)
    if not rows:
        return None
    figure, ((axes,),) = _figure(1, 1.3 + 0.3 * len(rows))
    labels = [f"{row['title'].removesuffix(', engine: auto')}, {precision_of(row)}" for row in rows]
    colours = [theme.ours if row["name"] == "ours" else theme.other for row in rows]
    drawn = _barh(axes, labels, [best(row) for row in rows], colours)
    axes.bar_label(drawn, fmt="{:,.1f}", padding=4)
    axes.set_title(f"{part['shape']}: requests a second over HTTP, one text each")
    _caption(figure, part)
    return figure


def raw(part: Part, theme: Theme) -> Any:
    """Texts a second of every engine, and its share of the fastest product beside it."""
    shapes = [one for one in part["shapes"].values() if one.get("engines")]
    if not shapes:
        return None
    rows = max(len(one["engines"]) for one in shapes)
    figure, axes = _figure(len(shapes), 1.3 + 0.28 * rows)
    shown: list[str] = []
    for found, one in zip(shapes, axes[0], strict=True):
        engines = [row for row in found["engines"] if "texts_per_s" in row]
        colours = [theme.other if row["name"] == "transformers" else theme.ours for row in engines]
        titles = [row["title"] for row in engines]
        drawn = _barh(one, titles, [row["texts_per_s"] for row in engines], colours)
        labels = [
            f"{row['texts_per_s']:,.0f}  ({row['share_of_peak'] or 0:.0%})" for row in engines
        ]
        one.bar_label(drawn, labels, padding=4, fontsize=8)
        one.margins(x=0.3)
        one.set_title(f"{found['title']}: texts/s (of its product)", fontsize=10)
        if titles == shown:  # the same engines in the same order: said once
            one.set_yticklabels([])
        shown = titles
    _caption(figure, part)
    return figure


def service(part: Part, theme: Theme) -> Any:
    """The share that arrives, and requests a second without a model, by connections."""
    figure, ((left, right),) = _figure(2, 3.6)
    with_model = [one for one in part["shapes"].values() if one.get("raw_rates")]
    for found, colour in zip(with_model, theme.series, strict=False):
        runs = found["runs"]
        x = [run["connections"] for run in runs]
        y = [100 * run["share"] for run in runs]
        left.plot(x, y, color=colour, label=f"{found['title']}, {engine_of(found['info'])}")
    left.set(xscale="log", xlabel="connections")
    left.set_ylim(bottom=0)
    left.set_title("Of the raw engine's texts/s, over HTTP (%)")
    left.legend(loc="lower right", fontsize=8)
    runs = part["shapes"].get("none", {}).get("runs", [])
    x = [run["connections"] for run in runs]
    right.plot(x, [run["requests_per_s"] for run in runs], color=theme.series[0])
    right.set(xscale="log", xlabel="connections")
    right.set_ylim(bottom=0)
    right.set_title("Requests/s without a model")
    for axes in (left, right):
        _plain_ticks(axes, x or part["settings"]["connections"])
    _caption(figure, part)
    return figure


def openloop(part: Part, theme: Theme) -> Any:
    """Latency by the share of capacity."""
    panels: dict[str, Any] = {f"{part['shape']}: latency in ms, Poisson arrivals": part.get("rows")}
    if alone := part.get("own_device", {}).get("rows"):
        panels["Before a device of its own (a stand-in)"] = alone
    if not all(panels.values()):
        return None
    figure, (row_of_axes,) = _figure(len(panels), 3.4)
    for axes, (title, rows) in zip(row_of_axes, panels.items(), strict=True):
        x = [100 * row["share"] for row in rows]
        for name, colour in zip(("p50", "p95", "p99"), theme.series, strict=True):
            axes.plot(x, [row[f"{name}_ms"] for row in rows], color=colour, label=name)
            if all(f"ideal_{name}_ms" in row for row in rows):
                ideal = [row[f"ideal_{name}_ms"] for row in rows]
                axes.plot(x, ideal, color=colour, ls=":", lw=1, label=f"{name}, ideal server")
        axes.set(xlabel="share of capacity (%)", xticks=x)
        axes.set_ylim(bottom=0)
        axes.set_title(title)
    row_of_axes[-1].legend(loc="upper left")
    _caption(figure, part)
    return figure


def growth(part: Part, theme: Theme) -> Any:
    """Requests a second by replicas; milliseconds a text by its length."""
    figure, ((left, right),) = _figure(2, 3.6)
    names = {"waiting": "stand-in that needs no core", "none": "no model"}
    for (kind, name), colour in zip(names.items(), theme.series, strict=False):
        rows = [row for row in part["replicas"] if row["kind"] == kind]
        if rows:
            x = [row["replicas"]["Classifier"] for row in rows]
            points = dict(zip(x, [row["requests_per_s"] for row in rows], strict=True))
            left.plot(list(points), list(points.values()), color=colour, label=name)
    left.set(xlabel="Classifier replicas")
    if part["replicas"]:
        _plain_ticks(left, sorted({row["replicas"]["Classifier"] for row in part["replicas"]}))
    left.set_ylim(bottom=0)
    left.set_title("Requests/s by replicas, on 1 to 3 Ray nodes")
    left.legend(loc="center right", fontsize=8)
    for name, colour in zip(("engine", "service"), theme.series, strict=False):
        x = [row["tokens"] for row in part["cost"]]
        right.plot(x, [row[f"{name}_ms"] for row in part["cost"]], color=colour, label=name)
    if part["cost"]:  # a logarithm needs something to show
        right.set(xscale="log", yscale="log")
    right.set_xlabel("tokens")
    right.set_title(f"{part['shape']}: ms a text by its length")
    right.legend(loc="upper left", fontsize=8)
    right.yaxis.set_major_formatter("{x:g}")
    _plain_ticks(right, LENGTHS_SHOWN)
    _caption(figure, part)
    return figure


def _plain_ticks(axes: Any, ticks: Any) -> None:
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


PLOTS: dict[str, Callable[[Part, Theme], Any]] = {
    "peers": peers,
    "raw": raw,
    "service": service,
    "openloop": openloop,
    "growth": growth,
}
