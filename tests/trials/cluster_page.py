"""The tables of docs/cluster.md out of docs/cluster.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .report import section

Modes = dict[str, dict[str, Any]]
MARK = "<!-- From here on by scripts/cluster_trial.py -->"


def page(modes: Modes, before: str) -> str:
    """The whole page. before: as it was, whose part above the mark is written by hand and stays."""
    by_hand = before.partition(MARK)[0]
    tables = ("\n".join(_whole(name, part)) for name, part in modes.items())
    return f"{by_hand}{MARK}\n\n" + "\n".join(tables)


def _whole(name: str, part: dict[str, Any]) -> list[str]:
    lines = [section(name, part, "cluster_trial")]
    more = {"surge": _outputs, "network": _lines, "failover": _logs}.get(name)
    return [*lines, *(more(part["figures"]) if more else [])]


def _outputs(figures: dict[str, Any]) -> list[str]:
    lines = []
    for how, found in figures.items():
        lines += [f"{how}:", "", "```text", *_without_repeats(found["output"]), "```", ""]
    return lines


def _without_repeats(output: list[str]) -> Iterator[str]:
    """Of lines that say the same with other numbers, one after the other, the first."""
    last = ""
    for line in output:
        begins = line[:24] if line.startswith("  ") else line
        if begins != last:
            yield line
        last = begins


def _lines(figures: dict[str, Any]) -> list[str]:
    rows = [
        f"| {one['name']} | {one['door']} | {one['requests']:,} | {_told(one['outcomes'])} | "
        f"{one['p50_ms']:g} | {one['p99_ms']:g} | {one['lost']:,} of {one['packets']:,} |"
        for one in figures.get("lines", [])
    ]
    if not rows:
        return []
    return [
        "| line | in at | requests | became | p50, ms | p99, ms | packets lost |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _logs(figures: dict[str, Any]) -> list[str]:
    lines = []
    for how, found in figures.items():
        log = [f"{at_s:7.1f} s  {what}" for at_s, what in found["log"]]
        lines += [f"{how}. Seconds from the kill:", "", "```text", *log, "```", ""]
        lines += ["| requests sent | became |", "|---|---|"]
        lines += [f"| {row['sent']} | {_told(row['outcomes'])} |" for row in _joined(found)]
        lines.append("")
    return lines


def _joined(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Stretches of time, those next to each other with the same kinds of outcome in one row."""
    rows: list[dict[str, Any]] = []
    buckets = found["answers"]
    for number, one in enumerate(buckets):
        after_s = buckets[number + 1]["from_s"] if number + 1 < len(buckets) else None
        same = bool(rows) and set(rows[-1]["outcomes"]) == set(one["outcomes"])
        if same and one["from_s"] != 0:  # the kill begins a row of its own
            for what, n in one["outcomes"].items():
                rows[-1]["outcomes"][what] += n
        else:
            rows.append({"from_s": one["from_s"], "outcomes": dict(one["outcomes"])})
        until = "the end" if after_s is None else f"{after_s:g} s"
        rows[-1]["sent"] = f"from {rows[-1]['from_s']:g} s to {until}"
    return rows


def _told(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {what}" for what, n in sorted(outcomes.items()))
