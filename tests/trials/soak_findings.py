"""What a soak's figures say of the promises."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from deployments.bench.client import RIGHT

from .mixed import ALLOWED
from .session import Part

# A worker's pod of k8s/ has some 5 GiB to spare: at this pace it takes 10 days to fill, and what is
# slower cannot be told from chance in an hour of waves.
MAX_RSS_PER_H = 20.0
MAX_GROWN_MIB = 100.0
MAX_FILES_PER_H = 20.0
JUDGED_FROM_MINUTES = 30.0  # what is still filling after a few minutes would be a slope


def judge(part: Part) -> None:
    """Adds the findings; also those of a soak that was interrupted."""
    figures = part.figures
    minutes = max((one["to_s"] for one in figures["processes"]), default=0.0) / 60
    how = (
        f"{minutes:.0f} minutes of mixed requests, Poisson, in waves of 10 % to 110 % of "
        f"{figures['capacity_per_s']:.0f}/s every {figures['wave_s'] / 60:.1f} minutes"
    )
    _answers(part, how)
    _scaling(part)
    if minutes >= JUDGED_FROM_MINUTES:
        _memory(part)
        _files(part)
    if "tracebacks" in figures:
        _afterwards(part)


def _answers(part: Part, how: str) -> None:
    outcomes = part.figures["outcomes"]
    total: Counter[str] = Counter()
    for counts in outcomes.values():
        total.update(counts)
    bad = {what: n for what, n in total.items() if what not in ALLOWED}
    asked = part.figures["asked"]
    part.add(
        "Every request gets one right answer, a 429 with Retry-After or a 408",
        how,
        asked,
        _listed(total),
        not bad and sum(total.values()) == asked and total[RIGHT] > 0,
    )
    by_handle = Counter(part.figures["by_handle"])
    part.add(
        "So does every call by a handle",
        "two a second, from a driver inside Ray",
        by_handle.total(),
        _listed(by_handle),
        set(by_handle) <= {RIGHT, "shed"} and by_handle[RIGHT] > 0,
    )


def _scaling(part: Part) -> None:
    ups, downs = ups_and_downs(part.figures["classifiers"])
    kinds = {one["kind"] for one in part.figures["processes"]}
    part.add(
        "Replicas follow the load",
        "Classifiers counted all the while; delays short enough for the waves",
        ups + downs,
        f"{ups} times up, {downs} times down, {len(kinds)} kinds of processes",
        ups > 0 and downs > 0,
    )


def ups_and_downs(counts: list[list[float]]) -> tuple[int, int]:
    """How often the number, in pairs of time and number, rose and fell."""
    numbers = [count for _, count in counts]
    steps = [b - a for a, b in pairwise(numbers)]
    return sum(step > 0 for step in steps), sum(step < 0 for step in steps)


def _memory(part: Part) -> None:
    sloped = _with_slopes(part)
    broken = [one for one in sloped if grows(one)]
    steepest = max(sloped, key=lambda one: one["rss_mib_per_h"][0], default=None)
    result = f"{len(sloped)} processes with a slope, {_short_lived(part)} lived too short for one"
    if steepest:
        result += f"; steepest {_slope_of(steepest, 'rss_mib_per_h', 'MiB/h')}"
    result += "".join(f"; grows: {_slope_of(one, 'rss_mib_per_h', 'MiB/h')}" for one in broken)
    part.add(
        f"No process grows by {MAX_RSS_PER_H:.0f} MiB/h beyond doubt, nor by "
        f"{MAX_GROWN_MIB:.0f} MiB",
        "resident memory by process, least squares after each one's first 15 % of the time, "
        "95 % interval; first against last tenth",
        len(sloped),
        result,
        bool(sloped) and not broken,
    )


def grows(one: dict[str, Any]) -> bool:
    """Whether a process's memory grows beyond doubt, or by much."""
    return bool(one["rss_mib_per_h"][1] > MAX_RSS_PER_H or one["rss_grown_mib"] > MAX_GROWN_MIB)


def _files(part: Part) -> None:
    sloped = _with_slopes(part)
    broken = [one for one in sloped if one["files_per_h"][1] > MAX_FILES_PER_H]
    most = max(part.figures["processes"], key=lambda one: one["files_max"], default=None)
    result = f"most: {most['kind']}, {most['files_max']}" if most else "none seen"
    result += "".join(f"; grows: {_slope_of(one, 'files_per_h', 'files/h')}" for one in broken)
    part.add(
        f"No process gathers {MAX_FILES_PER_H:.0f} open files an hour beyond doubt",
        "open files by process, likewise",
        len(sloped),
        result,
        bool(sloped) and not broken,
    )


def _afterwards(part: Part) -> None:
    ready, found = part.figures["ready_after"], part.figures["tracebacks"]
    part.add(
        "Afterwards the service is as before",
        "readiness, logs",
        1,
        f"ready: {ready}, tracebacks in logs: {found}",
        ready and not found,
    )


def _with_slopes(part: Part) -> list[dict[str, Any]]:
    return [one for one in part.figures["processes"] if "rss_mib_per_h" in one
            and not one["kind"].startswith("this trial")]  # fmt: skip


def _short_lived(part: Part) -> int:
    return sum("rss_mib_per_h" not in one for one in part.figures["processes"])


def _slope_of(one: dict[str, Any], name: str, unit: str) -> str:
    value, low, high = one[name]
    return f"{one['kind']} {value:+.1f} ({low:+.1f} to {high:+.1f}) {unit}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.most_common())
