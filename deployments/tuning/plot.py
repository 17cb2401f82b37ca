"""Throughput against p99 of all setups, the front and the choice marked, as SVG or PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deployments.tuning.choice import Result, pareto_front

_COLOURS = ("#2a6fbb", "#d1495b", "#2e933c", "#8f5db7", "#c77f1a", "#008b8b", "#6b6b6b", "#b5528a")

_MARKERS = "os^Dv"  # the next where the colours are used up


def plot(
    results: Sequence[Result],
    chosen: Result,
    target_p99_ms: float | None,
    title: str,
    path: Path,
) -> None:
    """Raises ImportError where matplotlib is not installed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    names = sorted({str(result.setup) for result in results})
    for i, name in enumerate(names):
        own = [result for result in results if str(result.setup) == name]
        axes.plot(
            [r.p99_ms for r in own],
            [r.texts_per_s for r in own],
            _MARKERS[i // len(_COLOURS) % len(_MARKERS)],
            color=_COLOURS[i % len(_COLOURS)],
            markersize=5,
            label=name,
        )
    front = pareto_front(results)
    axes.step(
        [r.p99_ms for r in front],
        [r.texts_per_s for r in front],
        where="post",
        color="black",
        linewidth=1.2,
        linestyle="--",
        label="Pareto front",
    )
    for result in front:
        axes.annotate(
            f"{result.setup.max_batch_tokens:,}",
            (result.p99_ms, result.texts_per_s),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=7,
        )
    axes.plot(chosen.p99_ms, chosen.texts_per_s, "*", color="black", markersize=15, label="chosen")
    if target_p99_ms is not None:
        axes.axvline(target_p99_ms, color="black", linewidth=0.8, linestyle=":")
    if len(results) > 1:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("p99, ms (from arrival in the queue to logits; numbers: max_batch_tokens)")
    axes.set_ylabel("texts a second")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
