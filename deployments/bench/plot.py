"""What was measured as a picture: texts a second and p99 over the load, a line a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deployments.bench.run import Result

_MARKERS = "os^Dv"


def plot(results: Sequence[Result], path: Path) -> None:
    """Raises ImportError where matplotlib is not installed."""
    from matplotlib.figure import Figure

    kinds = [
        ("connections", [one for one in results if one.connections is not None]),
        ("rate_per_s", [one for one in results if one.rate_per_s is not None]),
    ]
    kinds = [(load, rows) for load, rows in kinds if rows]
    figure = Figure(figsize=(9, 4 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), 2, squeeze=False)
    for (load, rows), (speed, delay) in zip(kinds, grid, strict=True):
        for i, server in enumerate(dict.fromkeys((one.dialect, one.url) for one in rows)):
            own = [one for one in rows if (one.dialect, one.url) == server]
            loads = [getattr(one, load) for one in own]
            style = {"marker": _MARKERS[i % len(_MARKERS)], "label": " ".join(server)}
            speed.plot(loads, [one.texts_per_s for one in own], **style)
            # Where nothing was answered, the line has a gap.
            delay.plot(loads, [one.p99_ms or float("nan") for one in own], **style)
        for axes, unit in ((speed, "texts a second"), (delay, "p99, ms")):
            axes.set_ylabel(unit)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.25)
            axes.set_xlabel("connections" if load == "connections" else "arrivals a second")
            if load == "connections":
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter("{x:g}")
        speed.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
