"""Plots of trials, as SVG for light and for dark pages."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.bench.plots import Theme, draw_all

DEPLOYMENTS = ("Classifier", "Tokenizer", "Postprocessor")  # the others are grey


def draw_soak(part: dict[str, Any], folder: Path) -> list[Path]:
    """Draws `soak-light.svg` and `soak-dark.svg`. Needs matplotlib (extra `plots`)."""
    lines = {"lines.marker": "", "lines.linewidth": 1.5}
    return draw_all({"soak": partial(_plot, part)}, folder, **lines)


def _plot(part: dict[str, Any], theme: Theme) -> Any:
    import matplotlib.pyplot as plt

    figures = part["figures"]
    figure, (memory, load) = plt.subplots(2, 1, figsize=(9, 6), height_ratios=(3, 1.4), sharex=True)
    colours = dict(zip(DEPLOYMENTS, theme.series, strict=True))
    drawn: set[str] = set()
    for name, found in figures["series"].items():
        kind = name.rsplit(" ", 1)[0]
        if kind.startswith(("all ", "this ")):
            continue
        label = kind if kind in colours else "others"
        memory.plot(
            found["minute"],
            found["rss_mib"],
            color=colours.get(kind, theme.other),
            linewidth=1.5 if kind in colours else 0.8,
            zorder=3 if kind in colours else 2,
            label=None if label in drawn else label,
        )
        drawn.add(label)
    memory.set(yscale="log")
    memory.yaxis.set_major_formatter("{x:,.0f}")
    memory.set_title("Resident memory by process (MiB)")
    memory.legend(fontsize=8, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    _load(load, figures, theme)
    machine = part["machine"]
    figure.supxlabel(
        f"{machine['cores']} cores of {machine['cpu']}, commit {machine['commit']}, "
        f"{machine['measured_at']}; a line in the upper plot begins and ends with its process",
        fontsize=7, x=0.01, ha="left")  # fmt: skip
    return figure


def _load(axes: Any, figures: dict[str, Any], theme: Theme) -> None:
    minutes = figures["minutes"]
    rates = [
        (late["minute"], (late["asked"] - soon["asked"]) / (late["minute"] - soon["minute"]) / 60)
        for soon, late in pairwise(minutes)
        if late["minute"] > soon["minute"]
    ]
    axes.plot([at for at, _ in rates], [rate for _, rate in rates], color=theme.series[0])
    axes.axhline(figures["capacity_per_s"], color=theme.text, linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    axes.set_title("Requests a second (dotted: the capacity) and Classifiers (steps, right)")
    counts = axes.twinx()
    counts.grid(visible=False)
    steps = figures["classifiers"]
    end = minutes[-1]["minute"] if minutes else 0
    at = [t / 60 for t, _ in steps]
    counts.step([*at, max(end, *at)], [n for _, n in steps] + [steps[-1][1]], where="post",
                color=theme.series[1], linewidth=1)  # fmt: skip
    counts.set_ylim(0, max(n for _, n in steps) + 1)
    counts.set_yticks(range(max(n for _, n in steps) + 2))


def draw_autoscaling(part: dict[str, Any], folder: Path) -> list[Path]:
    """Draws `autoscaling-light.svg` and `autoscaling-dark.svg`. Needs matplotlib."""
    lines = {"lines.marker": "", "lines.linewidth": 1.5}
    return draw_all({"autoscaling": partial(_autoscaling, part)}, folder, **lines)


def _autoscaling(part: dict[str, Any], theme: Theme) -> Any:
    import matplotlib.pyplot as plt

    figures, machine = part["figures"], part["machine"]
    series, phases = figures["series"], figures["phases"]
    figure, panels = plt.subplots(4, 1, figsize=(9, 7), sharex=True, height_ratios=(1, 1, 1, 1))
    load, replicas, busy, slow = panels
    at = [one["at_s"] for one in series]
    for phase in phases:
        windows = phase["windows"]
        times = [one["at_s"] for one in windows]
        load.plot(times, [one["per_s"] for one in windows], color=theme.series[0])
        slow.plot(times, [one["p99_ms"] for one in windows], color=theme.series[0])
        for panel in panels:
            panel.axvspan(phase["began_s"], phase["ended_s"], color=theme.grid, alpha=0.4, zorder=0)
    for k, phase in enumerate(phases, 1):
        middle = (phase["began_s"] + phase["ended_s"]) / 2
        load.annotate(str(k), (middle, 0.8), xycoords=("data", "axes fraction"))
    load.set_title("Requests answered a second")
    replicas.step(at, [one["target"] for one in series], color=theme.series[1], where="post",
                  label="aimed at")  # fmt: skip
    replicas.step(at, [one["running"] for one in series], color=theme.series[0], where="post",
                  label="running")  # fmt: skip
    replicas.set(ylim=(0, max(one["target"] for one in series) + 0.5))
    replicas.yaxis.get_major_locator().set_params(integer=True)
    replicas.set_title("Classifiers")
    replicas.legend(fontsize=8, ncols=2, loc="upper right")
    each = [one["busy"] / max(one["reporting"], 1) for one in series]
    busy.plot(at, each, color=theme.series[0])
    busy.axhline(0.7, color=theme.text, linewidth=0.8, linestyle=":")
    busy.set(ylim=(0, 1.05))
    busy.yaxis.set_major_formatter("{x:.0%}")
    busy.set_title("Busy share of a Classifier (dotted: target_busy)")
    slow.set(yscale="log")
    slow.yaxis.set_major_formatter("{x:,.0f}")
    slow.set_title("p99 (ms)")
    slow.set_xlabel("seconds")
    figure.supxlabel(
        ";  ".join(f"{k}: {phase['name']}" for k, phase in enumerate(phases, 1))
        + f"\n{machine['cores']} cores of {machine['cpu']}, commit {machine['commit']}, "
        f"{machine['measured_at']}; demo model, serve_config.yaml, downscale_delay_s "
        f"{figures['downscale_delay_s']:g}",
        fontsize=7, x=0.01, ha="left")  # fmt: skip
    return figure
