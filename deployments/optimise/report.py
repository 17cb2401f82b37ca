"""What an evaluation found, as one HTML page, and its plot."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from deployments.optimise.choice import Candidate
from deployments.optimise.evaluation import Evaluation
from deployments.optimise.number_statistics import NumberScores
from deployments.optimise.statistics import Interval, Scores

_MARKERS = "os^Dv"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
tr.chosen td { font-weight: bold; }
svg { max-width: 100%; height: auto; background: white; }
"""


def front_plot(found: Evaluation, path: Path | io.BytesIO, kind: str) -> None:
    """Texts a second against what models are ranked by, with its interval; the front, and what is
    recommended.

    kind: svg or png.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for i, one in enumerate(found.candidates):
        main = one.scores.main
        axes.errorbar(
            [one.speed.texts_per_s],
            [main.value],
            yerr=[[max(0.0, main.value - main.low)], [max(0.0, main.high - main.value)]],
            fmt=_MARKERS[i % len(_MARKERS)],
            capsize=3,
            label=one.name,
        )
    front = found.front
    axes.plot(
        [one.speed.texts_per_s for one in front],
        [one.main for one in front],
        "k--",
        linewidth=1,
        label="Pareto front",
    )
    if chosen := found.recommendation.chosen:
        axes.plot(
            chosen.speed.texts_per_s,
            chosen.main,
            "o",
            markersize=16,
            fillstyle="none",
            color="black",
            label="recommended",
        )
    log_x(axes)
    axes.set_xlabel("texts a second, this machine")
    axes.set_ylabel(f"{found.problem.ranked_by} on {found.n_texts:,} texts, 95 % interval")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    with mpl.rc_context({"svg.hashsalt": "rayclassify"}):
        figure.savefig(path, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})


def log_x(axes: Any) -> None:
    """A logarithmic x axis with plain numbers: 50, 100, 200."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def page(found: Evaluation) -> str:
    """One HTML page that loads nothing from anywhere. It holds no text of the table."""
    chosen = found.recommendation.chosen
    title = f"Models on {found.n_texts:,} texts of {Path(found.path).name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><strong>Recommended: {escape(chosen.name if chosen else 'none')}.</strong> "
        f"{escape(' '.join(found.recommendation.why))}</p>",
        _svg(found),
        "<h2>Models</h2>",
        _rows(head(found), [cells(one, found) for one in found.candidates], chosen),
        "<p>In brackets: 95 % intervals of a bootstrap over texts. p50, p99: one text at a time. "
        "Texts/s: in lists. Memory: the most that the whole process held.</p>",
    ]
    if found.differences:
        parts += [
            "<h2>Pairs on the same texts</h2>",
            _rows(*pairs(found)),
            "<p>Exact test, two-sided, corrected for all pairs by Holm.</p>",
        ]
    for one in found.candidates:
        parts += [f"<h2>{escape(one.name)}</h2>", *_by_label(one, found.problem.names)]
    notes = [*found.notes, *(f"{name}: {why}" for name, why in found.failures.items())]
    if notes:
        parts += ["<h2>Left out</h2><ul>", *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def head(found: Evaluation) -> tuple[str, ...]:
    """Of the table of models."""
    measured = ("p50 ms", "p99 ms", "texts/s", "memory MB", "per million", "no answer", "")
    return ("model", *found.problem.figures, *measured)


def pairs(found: Evaluation) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The table of differences: its head, and a row for each two models."""
    what, test = found.problem.counted
    rows = [
        (
            f"{one.first} − {one.second}",
            *(signed(getattr(one, name)) for name in found.problem.gaps.values()),
            f"{one.only_first_right:,}",
            f"{one.only_second_right:,}",
            f"{one.p_value:.2g}",
        )
        for one in found.differences
    ]
    titles = tuple(found.problem.gaps)
    return ("first − second", *titles, f"only first {what}", f"only second {what}", test), rows


def cells(one: Candidate, found: Evaluation) -> tuple[str, ...]:
    """A row below `head`."""
    mark = "front" if one in found.front else ""
    if found.recommendation.chosen is one:
        mark = "recommended"
    rate = one.speed.texts_per_s
    return (
        one.name,
        *(str(getattr(one.scores, name)) for name in found.problem.figures.values()),
        f"{one.speed.p50_ms:,.1f}",
        f"{one.speed.p99_ms:,.1f}",
        f"{rate:,.3g}" if rate < 100 else f"{rate:,.0f}",
        f"{one.speed.memory_mb:,.0f}",
        "–" if one.cost is None else f"{one.cost:,.3g}",
        f"{one.n_failed:,}",
        mark,
    )


def signed(gap: Interval) -> str:
    """A difference with its interval."""
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def by_label_rows(one: Candidate, labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Label, precision, recall, F1, and rows of it; none of a regression."""
    if isinstance(one.scores, NumberScores):
        return []
    there = one.scores.support
    return [
        (label, str(one.scores.precision[i]), str(one.scores.recall[i]), str(one.scores.f1[i]),
         f"{there[i]:,}")
        for i, label in enumerate(labels)
    ]  # fmt: skip


def _by_label(one: Candidate, labels: Sequence[str]) -> list[str]:
    parts = [f"<p>{escape(one.engine)}</p>"]
    if rows := by_label_rows(one, labels):
        parts.append(_rows(("label", "precision", "recall", "F1", "texts"), rows))
    if isinstance(one.scores, Scores):
        parts.append(_confusion(one.scores, labels))
    return parts


def _confusion(scores: Scores, labels: Sequence[str]) -> str:
    heads = [*labels, "none of them"] if scores.confusion[:, -1].any() else list(labels)
    counts = [
        (label, *(f"{n:,}" for n in row[: len(heads)]))
        for label, row in zip(labels, scores.confusion.tolist(), strict=True)
    ]
    return _rows(("is ↓ was called →", *heads), counts)


def _rows(
    head: Iterable[str], rows: Sequence[Sequence[str]], chosen: Candidate | None = None
) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in rows:
        mark = ' class="chosen"' if chosen is not None and row[0] == chosen.name else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _svg(found: Evaluation) -> str:
    drawn: Any = io.BytesIO()
    try:
        front_plot(found, drawn, "svg")
    except ImportError:
        return "<p>No plot: matplotlib is not installed.</p>"
    text = drawn.getvalue().decode()
    return str(text[text.index("<svg") :])
