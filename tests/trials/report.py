"""docs/reliability.md out of docs/reliability.json."""

from __future__ import annotations

from typing import Any

from scripts.bench.report import picture

Row = dict[str, Any]

_HEAD = (
    "| process | minutes | RSS, MiB | MiB/h (95 %) | open files | most | files/h (95 %) | "
    "threads |",
    "|---|---|---|---|---|---|---|---|",
)
IMAGES = "images"
Modes = dict[str, dict[str, Any]]
_INTRO = """# Reliability

What the service promises, what was done to break it, and what became of it. Made by
`scripts/torture.py`, which runs the service, the load and the faults on one machine; the same
trials, shortened, are tests in `tests/e2e` and `tests/serve`.
"""


def soak_lines(figures: dict[str, Any], folder: str) -> list[str]:
    """folder: of the plot, as seen from the page."""
    if not figures.get("processes"):
        return []
    rows = [*figures["processes"], figures["together"]]
    long = [one for one in rows if "rss_mib_per_h" in one]
    short: dict[str, list[Row]] = {}
    for one in rows:
        if "rss_mib_per_h" not in one:
            short.setdefault(one["kind"], []).append(one)
    engine, minutes = figures["engine"], figures["minutes"]
    return [
        "",
        picture("soak", "Soak: memory of every process, load and replicas", folder),
        f"Engine {engine['engine']} {engine['dtype']}, {engine['num_threads']} threads a replica. "
        f"A sample every {figures['sample_s']:g} s; slopes without the first "
        f"{figures['warm_s'] / 60:.1f} minutes of each process, their interval widened for "
        "samples that are like the one before. Latency by minute: p50 "
        f"{_range(minutes, 'p50_ms')} ms, p99 {_range(minutes, 'p99_ms')} ms.",
        "",
        *_HEAD,
        *(_row(one) for one in long),
        *(_short_row(kind, found) for kind, found in sorted(short.items())),
    ]


def _row(one: Row) -> str:
    (rss_from, rss_to), (files_from, files_to) = one["rss_mib"], one["files"]
    return (
        f"| {one['kind']} | {_minutes(one):.0f} | {rss_from:,.0f} → {rss_to:,.0f} | "
        f"{_slope(one['rss_mib_per_h'])} | {files_from:,} → {files_to:,} | "
        f"{one['files_max']:,} | {_slope(one['files_per_h'])} | {one['threads_max']} |"
    )


def _short_row(kind: str, found: list[Row]) -> str:
    """Processes of one kind that lived too short for slopes, in one row."""
    lived = [_minutes(one) for one in found]
    last = [one["rss_mib"][1] for one in found]
    return (
        f"| {len(found)} × {kind}, short-lived | {min(lived):.1f} to {max(lived):.1f} | "
        f"at last {min(last):,.0f} to {max(last):,.0f} | | | "
        f"{max(one['files_max'] for one in found):,} | | "
        f"{max(one['threads_max'] for one in found)} |"
    )


def _minutes(one: Row) -> float:
    return float(one["to_s"] - one["from_s"]) / 60


def _slope(found: list[float]) -> str:
    value, low, high = found
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _range(minutes: list[Row], name: str) -> str:
    found = [one[name] for one in minutes if name in one]
    return f"{min(found):.0f} to {max(found):.0f}" if found else "-"


def page(modes: Modes) -> str:
    """The whole page: one table a mode, under the machine it was run on."""
    return "\n".join([_INTRO, *(section(name, part) for name, part in modes.items())])


def section(name: str, part: dict[str, Any], script: str = "torture") -> str:
    """A mode's findings as a table, under the machine it was run on."""
    machine = part["machine"]
    how_long = "shortened, " if part["settings"].get("quick") else ""
    whole = "" if part["complete"] else " **Interrupted: not all of it.**"
    lines = [
        f"## {name.capitalize()}",
        "",
        f"`python scripts/{script}.py {name}`, {how_long}{machine['cores']} cores of "
        f"{machine['cpu']}, commit {machine['commit']}, {machine['measured_at']}.{whole}",
        "",
        "| promise | how tried | cases | result | kept |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(f['promise'])} | {_cell(f['how'])} | {f['cases']:,} | {_cell(f['result'])} | "
        f"{'yes' if f['kept'] else '**no**'} |"
        for f in part["findings"]
    ]
    if name == "soak":
        lines += soak_lines(part["figures"], IMAGES)
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
