"""docs/benchmark.md, out of the JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from . import machine

IMAGES = "images"

Part = dict[str, Any]
Modes = dict[str, Part]


def page(modes: Modes, images: Iterable[str] = ()) -> str:
    """docs/benchmark.md: every table, with what its figures depend on beneath."""
    images = set(images)
    parts = [
        "# How fast\n",
        "Written by `python scripts/benchmark.py` from [benchmark.json](benchmark.json); not by "
        "hand. Client and\nservices share the machine. Compare within one table only.\n",
    ]
    for name, (title, tables) in SECTIONS.items():
        if name not in modes:
            continue
        part = modes[name]
        parts.append(f"## {title}\n")
        if not part["complete"]:
            parts.append("Interrupted: what is missing was not measured.\n")
        if name in images:
            parts.append(picture(name, title, IMAGES))
        parts += tables(part)
        parts.append(caption(part) + "\n")
    return "\n".join(parts)


def caption(part: Part) -> str:
    """Machine, threads, texts, length of a run and commit of a part."""
    where, how, what = part["machine"], part["settings"], part.get("workload")
    texts = (
        f" {what['texts']} real reviews of {what['tokens_mean']:g} tokens on average (median "
        f"{what['tokens_p50']}, longest {what['tokens_max']}; {what['truncated']} cut to that)."
        if what
        else ""
    )
    return (
        f"{machine.describe(where)}.{texts} {how['threads']} threads for each model, runs of "
        f"{how['duration_s']:g} s or more. Commit {where['commit']}, {where['measured_at']}, load "
        f"before {where['load_before']}."
    )


def picture(name: str, title: str, folder: str) -> str:
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{folder}/{name}-dark.svg">\n'
        f'  <img alt="{title}" src="{folder}/{name}-light.svg">\n'
        "</picture>\n"
    )


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, with a line after it."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def raw_tables(part: Part) -> list[str]:
    out = []
    for found in part["shapes"].values():
        out.append(
            f"**{found['title']}**: {found['gflops_per_text']:.2f} GFLOP a text. Each engine in "
            "turns with the fastest matrix\nproduct of the model's shapes, in its precision, on "
            "each of its threads at once: so many GFLOP/s.\n"
        )
        rows = [
            (row["title"], f"{row['texts_per_s']:,.1f}", f"{row['gflops']:,.0f}",
             f"{row['share_of_peak']:.0%} of {row['peak_gflops']:,.0f}", _few(row), row["batching"])
            if "texts_per_s" in row
            else (row["title"], "–", "", "", "", one_line(row.get("unavailable", "")))
            for row in found["engines"]
        ]  # fmt: skip
        head = ("engine", "texts/s", "GFLOP/s", "of its product", "4 texts a batch", "")
        out.append(table(head, rows))
    return out


def _few(row: dict[str, Any]) -> str:
    few = row.get("few")
    if few is None:
        return "–"
    return f"{few['texts_per_s']:,.1f} texts/s, {few['share_of_peak']:.0%}"


def service_tables(part: Part) -> list[str]:
    out = []
    for found in part["shapes"].values():
        info = found.get("info", {})
        engine = "" if info.get("engine") == "none" else f", {engine_of(info)}"
        out.append(f"**{found['title']}**{engine}")
        if "raw_single_p50_ms" in found:
            out[-1] += f"; one text alone in-process: {found['raw_single_p50_ms']:.1f} ms"
        out[-1] += "\n"
        head = ["connections", "requests/s", "of the raw engine", *LATENCY_HEAD, *COUNT_HEAD]
        rows = [
            [run["connections"], f"{run['requests_per_s']:,.1f}", *_answered(run)]
            for run in found.get("runs", ())
        ]
        out.append(table(head, rows))
        if lists := found.get("lists"):
            head = ["lists of", "connections", "texts/s", *head[2:]]
            rows = [
                [run["texts"], run["connections"], f"{run['texts_per_s']:,.0f}", *_answered(run)]
                for run in lists
            ]
            out.append(table(head, rows))
            wrong: Counter[str] = sum((Counter(run["statuses"]) for run in lists), Counter())
            if wrong["429"]:
                told = ", ".join(f"{code} {n:,}" for code, n in sorted(wrong.items()))
                out.append(
                    f"Answers by status: {told}. As many lists are more than this model answers in "
                    "time, and wrk\nasks again at once, whatever Retry-After says, on the "
                    "service's own cores.\n"
                )
    return out


def _answered(run: Part) -> list[object]:
    """Share of the raw engine, latencies and counts."""
    share = f"{run['share']:.0%} of {run['raw_texts_per_s']:,.1f}" if "share" in run else "–"
    return [share, *_latency(run), *counts_of(run)]


def peers_tables(part: Part) -> list[str]:
    out = [f"**{part['shape']}**, each as its own documentation advises for throughput\n"]
    out.append(_peer_table(part["rows"]))
    out.append("**No model**: what each server itself costs\n")
    out.append(_peer_table(part["null"]))
    setups = {row["title"]: _setup(row) for row in part["rows"] if row.get("setup")}
    out.append("\n".join(f"- {title}: {setup}" for title, setup in setups.items()) + "\n")
    return out


def _setup(row: Part) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in row.get("versions", {}).items())
    return f"{row['setup']} ({versions})" if versions else str(row["setup"])


def _peer_table(rows: list[Part]) -> str:
    head = ["", "precision", "labels", "connections", "requests/s", *LATENCY_HEAD, *COUNT_HEAD]
    lines: list[list[object]] = []
    for row in rows:
        who = [row["title"], precision_of(row)]
        if not row.get("runs"):
            reason = one_line(row.get("unavailable", "not run"))
            lines.append([*who, "–", "–", f"can't run: {reason}", *[""] * 5])
        for run in row.get("runs", ()):
            rate = f"{run['requests_per_s']:,.1f}"
            cells = [labels_of(row), run["connections"], rate, *_latency(run), *counts_of(run)]
            lines.append([*who, *cells])
    return table(head, lines)


def openloop_tables(part: Part) -> list[str]:
    said = [
        f"**{part['shape']}**, {engine_of(part.get('info', {}))}; {_loaded(part)} Poisson "
        "arrivals; latency counts from the moment at which a request was due. Ideal: the same "
        "arrivals at a model that takes as long for a pass as this engine alone, never idle while "
        "a text waits, without HTTP or chain; simulated with several limits of texts a pass, each "
        "percentile's best.\n",
        _open_loop_table(part),
    ]
    if alone := part.get("own_device"):
        cost = alone["pass"]
        said += [
            "**The same before a stand-in for a device of its own**, which takes as long for a "
            "pass as that engine alone and no core: client, HAProxy and chain have the machine to "
            f"themselves. A pass takes {1e3 * cost['start_s']:.1f} ms and "
            f"{1e6 * cost['token_s']:.0f} µs a token; {_loaded(alone)}\n",
            _open_loop_table(alone),
        ]
    return said


def _loaded(part: Part) -> str:
    return (
        f"capacity {part.get('capacity_per_s', 0):,.0f} requests/s (64 connections), p50 at 1 "
        f"connection {part.get('p50_at_1_ms', 0):.1f} ms."
    )


def _open_loop_table(part: Part) -> str:
    head = ("of capacity", "requests/s", *LATENCY_HEAD, "ideal p50", "ideal p99", "errors",
            "the client itself")  # fmt: skip
    rows = [
        (f"{row['share']:.0%}", f"{row['rate_per_s']:,.0f}", *_latency(row), *_against_ideal(row),
         row["errors"],
         f"{row['client_cpu']:.0%} of a core, p99 {row['lag_p99_ms']:.1f} ms late")
        for row in part.get("rows", ())
    ]  # fmt: skip
    return table(head, rows)


def _against_ideal(row: Part) -> list[str]:
    if "ideal_p50_ms" not in row:
        return ["–", "–"]
    return [
        f"{row[f'ideal_{name}']:,.1f} ms ({row[name] / row[f'ideal_{name}']:.2f} ×)"
        for name in ("p50_ms", "p99_ms")
    ]


def growth_tables(part: Part) -> list[str]:
    names = {"none": "no model", "waiting": "waits as a model of its own device would"}
    rows = [
        (names[row["kind"]], row["nodes"], row["replicas"]["Classifier"],
         row["replicas"]["Tokenizer"], f"{row['requests_per_s']:,.0f}", *counts_of(row))
        for row in part["replicas"]
    ]  # fmt: skip
    head = ("classifier", "nodes", "classifiers", "tokenizers", "requests/s", *COUNT_HEAD)
    cost = [
        (row["tokens"], f"{row['engine_ms']:.2f} ms", f"{row['service_ms']:.2f} ms", row["errors"])
        for row in part["cost"]
    ]
    return [
        f"All nodes, the client too, share {part['machine']['cores']} cores: without a model "
        "nothing can grow beyond them. The stand-in waits as long as a model of "
        f"{part['waiting_tokens_per_s']:,.0f} tokens/s a replica and needs no core: it shows what "
        "the chain lets through.\n",
        table(head, rows),
        f"**What a text costs by its length**, {part['shape']}, {engine_of(part.get('info', {}))}, "
        "64 connections\n",
        table(("tokens", "engine alone", "whole service", "errors"), cost),
    ]


def choice_tables(part: Part) -> list[str]:
    names = list(part["rows"][0]["rates"]) if part["rows"] else []
    rows: list[list[object]] = [
        [
            f"auto: {engine_of(row['info'])}" if row["dtype"] == "auto" else row["dtype"],
            *(f"{median(row['rates'][n]):.1f}" for n in names),
            row["errors"],
        ]
        for row in part["rows"]
        if row["rates"].keys() == set(names)
    ]
    if part["complete"]:
        best = [f"{of_the_best(part['rows'], n):.2f}" for n in names]
        rows.append(["auto, of the best precision's", *best, ""])
    head = ("engine", *(f"{n} connections" for n in names), "errors")
    return [
        f"**{part['shape']}**, requests/s over HTTP, all services up at once and asked in turns; "
        "medians.\n",
        table(head, rows),
    ]


def of_the_best(rows: list[Part], connections: str) -> float:
    """auto's rate over that of the best precision: the median of the turns' ratios."""
    auto, *others = (row["rates"][connections] for row in rows)
    # Of the precision that is best over all turns: the best of each turn would be chance.
    best = max(others, key=median)
    return float(median(ours / theirs for ours, theirs in zip(auto, best, strict=True)))


def bulk_tables(part: Part) -> list[str]:
    loop = next((row["rows_per_s"] for row in part["rows"] if "rows_per_s" in row), None)
    lines: list[list[object]] = []
    for row in part["rows"]:
        if "rows_per_s" not in row:
            reason = one_line(row.get("unavailable", "not run"))
            lines.append([row["title"], "–", "–", f"can't run: {reason}", *[""] * 4])
            continue
        times = f"{row['rows_per_s'] / loop:,.1f} ×" if loop else "–"
        counts = [f"{row['n_rows']:,}", f"{row['start_s']:.1f} s", row["errors"]]
        rate = f"{row['rows_per_s']:,.0f}"
        lines.append([row["title"], row["dtype"], labels_of(row), rate, times, *counts])
    head = ("", "precision", "labels", "rows/s", "of the first", "rows", "start", "errors")
    return [
        f"**A table of {part['n_rows']:,} rows**, the demo model. Rows/s count the start, which is "
        "what one row takes; a service is up before.\n",
        table(head, lines),
    ]


LATENCY_HEAD = ("p50", "p95", "p99")
COUNT_HEAD = ("errors", "truncated")
SECTIONS: dict[str, tuple[str, Callable[[Part], list[str]]]] = {
    "raw": ("Engines alone, against what the machine can do", raw_tables),
    "service": ("The service against its own engine", service_tables),
    "choice": ("What auto chose, beside each precision", choice_tables),
    "peers": ("The service against others", peers_tables),
    "openloop": ("Latency when requests arrive by chance", openloop_tables),
    "growth": ("Growth, and the cost of a text", growth_tables),
    "bulk": ("A whole table, by each way to label it", bulk_tables),
}


def best(row: Part) -> float:
    """Requests a second at the number of connections that suits it best; 0 if it never ran."""
    return max((float(run["requests_per_s"]) for run in row.get("runs", ())), default=0.0)


def labels_of(row: Part) -> str:
    return f"{row['agree']} of {row['sample']}" if "agree" in row else "–"


def precision_of(row: Part) -> str:
    if row["dtype"] == "auto" and "info" in row:
        return engine_of(row["info"])
    return "–" if row["dtype"] == "none" else str(row["dtype"])


def engine_of(info: Part) -> str:
    return f"{info.get('engine', '?')} {info.get('dtype', '?')}"


def _latency(run: Part) -> list[str]:
    return [f"{run[name]:,.1f} ms" for name in ("p50_ms", "p95_ms", "p99_ms")]


def counts_of(run: Part) -> list[object]:
    bad = sum(n for status, n in run["statuses"].items() if status != "200")
    return [bad + run["socket_errors"], run["truncated"]]


def one_line(reason: str) -> str:
    return " ".join(reason.split()).replace("|", "/")[:160]
