"""docs/scale.md's tables, from the JSON."""

from __future__ import annotations

from typing import Any

from deployments.planning.gpus import GPUS, SHAPES, estimated
from deployments.planning.plan import MAX_BATCH_TOKENS
from deployments.planning.service_times import CONTROLLER_MOST_REPLICAS, ServiceTimes
from scripts.bench.machine import describe

from .scenario import SLO_S


def rendered(page: str, blocks: dict[str, str]) -> str:
    """The page, with each block between its two marks."""
    for name, text in blocks.items():
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(end)
        page = f"{before}{start}\n\n{text.strip()}\n\n{end}{after}"
    return page


def blocks(modes: dict[str, Any], times: ServiceTimes) -> dict[str, str]:
    return {
        "validation": _validation(modes, modes["compared"]),
        "times": _times(times),
        "day": _day(modes["scenario"]),
        "gpus": _gpus(),
    }


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pair(one: dict[str, float]) -> list[str]:
    return [f"{one['measured']:,.0f}", f"{one['simulated']:,.0f}", f"{one['error']:+.0%}"]


def worst(compared: dict[str, Any], level: str) -> tuple[float, float]:
    """Median and largest error of a level over the runs, without sign."""
    errors = sorted(abs(row[level]["error"]) for row in compared["fixed"] if "share" in row)
    return errors[len(errors) // 2], errors[-1]


def _validation(modes: dict[str, Any], compared: dict[str, Any]) -> str:
    scaling = compared["scaling"]
    held, most = scaling["replica_s"], scaling["most"]
    machine = modes["scaling"]["machine"]
    parts = _fixed(compared) if compared["fixed"] else []
    parts += [
        "**Classifiers that come and go by the policy**, in a ramp to six replicas' worth of work "
        f"and a crowd of four: {held['measured']:,} replica-seconds measured and "
        f"{held['simulated']:,} simulated ({held['error']:+.0%}); at most {most['measured']} and "
        f"{most['simulated']} replicas; off by {scaling['off_by']:.2f} replicas on average. In "
        f"steps of 5 s, p50 is off by {scaling['p50_error']:.0%} in the middle, and p99, where a "
        f"hundred requests came, by {scaling['p99_error']:.0%}. A start took "
        f"{scaling['start_s']:.1f} s, which the simulation was told. "
        f"{describe(machine)}; load before {machine['load_before']:g}; {machine['measured_at']}.",
        _table(
            ["all requests, ms", "measured", "simulated", ""],
            [[name, *_pair(pair)] for name, pair in scaling["all"].items()],
        ),
        "**A run to which nothing here was fitted**: the trial `gpus` of "
        "[reliability.md](reliability.md), ten minutes on 1 to 8 devices without a fixed time a "
        "pass, on a quieter machine.",
        _recorded(compared["recorded"]),
        "**Throughput**: the benchmark's mode `growth`, 256 callers that never pause with single "
        "texts, in answers a second. The formula knows devices and no machine; from four on it is "
        "the two cores that end first.",
        _growth(compared["growth"]),
    ]
    return "\n\n".join(parts)


def _fixed(compared: dict[str, Any]) -> list[str]:
    head = ["Classifiers", "load", "requests", "p50 ms", "simulated", "", "p95 ms", "simulated", "",
            "p99 ms", "simulated", ""]  # fmt: skip
    ordered = sorted(compared["fixed"], key=lambda row: row["classifiers"])
    rows = [
        [str(row["classifiers"]), f"{row['share']:.0%}", f"{row['requests']:,}",
         *_pair(row["p50"]), *_pair(row["p95"]), *_pair(row["p99"])]
        for row in ordered if "share" in row
    ]  # fmt: skip
    said = [
        f"{level}: {median:.0%} in the middle, {largest:.0%} at most"
        for level in ("p50", "p95", "p99")
        for median, largest in [worst(compared, level)]
    ]
    return [
        "**1, 2, 4 and 8 Classifiers that stay so many**, at shares of what full passes read:",
        _table(head, rows),
        f"Error without its sign: {'; '.join(said)}.",
        "Callers that never pause, eight for each Classifier, in requests a second:",
        _growth([row for row in ordered if "per_s" in row]),
    ]


def _growth(rows: list[dict[str, Any]]) -> str:
    return _table(
        ["Classifiers", "measured", "simulated", ""],
        [[str(row["classifiers"]), *_pair(row["per_s"])] for row in rows],
    )


def _recorded(recorded: dict[str, Any]) -> str:
    rows = [
        [one["name"], *_pair(one["p50"]), *_pair(one["p99"]), *_pair(one["replica_s"]),
         f"{one['most']['measured']} and {one['most']['simulated']}"]
        for one in recorded["stretches"]
    ]  # fmt: skip
    head = ["load", "p50 ms", "simulated", "", "p99 ms", "simulated", "", "replica-seconds",
            "simulated", "", "most replicas"]  # fmt: skip
    return _table(head, rows)


def _times(times: ServiceTimes) -> str:
    hops = times.hops_s
    rows = [
        ["Tokenizer, a request of one text", f"{times.ingress_s(1) * 1e6:,.0f} µs of a core",
         "at most: one Tokenizer answered so many a second (mode `growth`, no model)"],
        ["Tokenizer, each further text", f"{times.ingress_text_s * 1e6:,.0f} µs",
         "CPU time in the runs below, in lists of 32"],
        ["Postprocessor, a call", f"{times.postprocess_call_s * 1e6:,.0f} µs",
         "CPU time in the same runs"],
        ["HAProxy, a request", f"{times.proxy_request_s * 1e6:,.0f} µs",
         "HAProxy's own figure, below"],
        ["a lone request, beyond its pass", f"{hops[len(hops) // 2] * 1e3:.1f} ms, "
         f"{hops[0] * 1e3:.1f} to {hops[-1] * 1e3:.1f}",
         "benchmark.md, no model, 1 connection, a busy machine"],
    ]  # fmt: skip
    return _table(["part", "takes", "from"], rows)


def _day(part: dict[str, Any]) -> str:
    head = ["", f"within {SLO_S * 1e3:g} ms", "refused", "p99, usual", "p99, worst", "Tokenizers",
            "Classifiers", "all replicas", "GPU-hours"]  # fmt: skip
    rows = [
        [way["name"], f"{way['attainment']:.3%}", f"{way['refused']:.3%}",
         f"{way['median_p99_ms']:,.0f} ms", f"{way['worst_p99_ms']:,.0f} ms",
         *(f"{way['least'][name]:,} to {way['most'][name]:,}" for name in ("Tokenizer",
                                                                        "Classifier")),
         f"{way['replicas_most']:,}", f"{way['gpu_hours']:,.0f}"]
        for way in part["ways"]
    ]  # fmt: skip
    planned = part["planned"]
    busiest = max(part["ways"], key=lambda way: way["replicas_most"])
    return "\n\n".join([
        _table(head, rows),
        f"{part['gpu']}, {part['model']}, {part['tokens_per_s']:,.0f} tokens/s and "
        f"{part['start_ms']:g} ms a pass (estimates). The plan for the peak: "
        f"{planned['Tokenizer']:,} Tokenizers, {planned['Classifier']:,} Classifiers, "
        f"{planned['Postprocessor']:,} Postprocessors. At the busiest, "
        f"{busiest['replicas_most']:,} replicas are "
        f"{busiest['replicas_most'] / CONTROLLER_MOST_REPLICAS:.0%} of what upstream's controller "
        "is known to keep up with, and each HAProxy needs "
        f"{max(way['proxy_of_its_threads'] for way in part['ways']):.0%} of its threads.",
    ])  # fmt: skip


def _gpus() -> str:
    rows = []
    for name, gpu in GPUS.items():
        speeds = [
            f"{estimated(gpu, shape, 80, MAX_BATCH_TOKENS).tokens_per_s:,.0f}"
            for shape in SHAPES.values()
        ]
        rows.append([f"`{name}`", f"{gpu.peak_tflops:,g}", *speeds, gpu.source])
    titles = [shape.name for shape in SHAPES.values()]
    return _table(["`--gpu`", "peak, TFLOPS", *titles, "source of the peak"], rows)
