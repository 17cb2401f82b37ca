"""What the figures must reach, and whether they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Modes = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One demand. met None: not measured, `measured` says what is missing."""

    demand: str
    measured: str
    met: bool | None


def bars(modes: Modes) -> list[Bar]:
    """Every bar, in the order of the issue that set them."""
    return [_bar(demand, judge, modes) for demand, judge in _BARS.items()]


def _bar(demand: str, judge: Callable[[Modes], tuple[str, bool]], modes: Modes) -> Bar:
    try:
        return Bar(demand, *judge(modes))
    except (KeyError, StopIteration, ZeroDivisionError) as exc:
        what = f" ({exc.args[0]})" if exc.args else ""
        return Bar(demand, f"not measured{what}", None)


def _share_at_64(modes: Modes) -> tuple[str, bool]:
    found = modes["service"]["shapes"]["bert-base"]
    run = _at(found["runs"], 64)
    value = run["share"]
    of = f"{run['requests_per_s']:.1f} of {run['raw_texts_per_s']:.1f} texts/s"
    return f"{value:.0%} ({of}, {found['info']['engine']} {found['info']['dtype']})", value >= 0.9


def _over_chain(dtype: str, factor: float) -> Callable[[Modes], tuple[str, bool]]:
    def judge(modes: Modes) -> tuple[str, bool]:
        rows = modes["peers"]["rows"]
        return _factor(
            best(_row(rows, "ours", "auto")), best(_row(rows, "ray-chain", dtype)), factor
        )

    return judge


def _over_fastest(ours: str, theirs: str, factor: float) -> Callable[[Modes], tuple[str, bool]]:
    def judge(modes: Modes) -> tuple[str, bool]:
        rows = modes["peers"]["rows"]
        peers = [
            row
            for row in rows
            if row["name"] != "ours" and row["dtype"] == theirs and row.get("runs")
        ]
        if not peers:
            raise KeyError(f"a peer in {theirs}")
        # Not every peer is run in every precision: without the usual winner there is no fastest.
        in_float32 = [
            row
            for row in rows
            if row["name"] != "ours" and row["dtype"] == "float32" and row.get("runs")
        ]
        winner = max(in_float32, key=best, default=peers[0])
        if winner["name"] not in {row["name"] for row in peers}:
            raise KeyError(f"{winner['title']} in {theirs}")
        fastest = max(peers, key=best)
        text, met = _factor(best(_row(rows, "ours", ours)), best(fastest), factor)
        return f"{text}: {fastest['title']}", met

    return judge


def _null_over(name: str, factor: float) -> Callable[[Modes], tuple[str, bool]]:
    def judge(modes: Modes) -> tuple[str, bool]:
        rows = modes["peers"]["null"]
        ours, theirs = (_at(_row(rows, who, "none")["runs"], 256) for who in ("ours", name))
        return _factor(ours["requests_per_s"], theirs["requests_per_s"], factor)

    return judge


def _null_ahead(modes: Modes) -> tuple[str, bool]:
    rows = modes["peers"]["null"]
    ours, theirs = (_row(rows, who, "none")["runs"] for who in ("ours", "litserve"))
    factors = {
        run["connections"]: _at(ours, run["connections"])["requests_per_s"] / run["requests_per_s"]
        for run in theirs
        if run["connections"] >= 16
    }
    if not factors:
        raise KeyError("16 connections")
    text = ", ".join(f"{value:.1f} × at {n}" for n, value in factors.items())
    return text, all(value > 1 for value in factors.values())


def _over_single(shape: str) -> Callable[[Modes], tuple[str, bool]]:
    def judge(modes: Modes) -> tuple[str, bool]:
        found = modes["service"]["shapes"][shape]
        p50, raw = _at(found["runs"], 1)["p50_ms"], found["raw_single_p50_ms"]
        return f"{p50 - raw:+.1f} ms ({p50:.1f} after {raw:.1f})", p50 - raw <= 3

    return judge


def _p99_at_90(modes: Modes) -> tuple[str, bool]:
    found = modes["openloop"]
    p50 = found["p50_at_1_ms"]
    (p99,) = [row["p99_ms"] for row in found["rows"] if row["share"] == 0.9] or [None]
    if p99 is None:
        raise KeyError("90 %")
    return f"{p99 / p50:.1f} × ({p99:.1f} ms after {p50:.1f} ms)", p99 <= 5 * p50


def best(row: dict[str, Any]) -> float:
    """Requests a second at the number of connections that suits it best."""
    return max(run["requests_per_s"] for run in row["runs"])


def _row(rows: list[dict[str, Any]], name: str, dtype: str) -> dict[str, Any]:
    for row in rows:
        if (row["name"], row["dtype"]) == (name, dtype):
            if not row.get("runs"):
                raise KeyError(f"{row['title']} {dtype}: {row.get('unavailable', 'no run')}")
            return row
    raise KeyError(f"{name} {dtype}")


def _at(runs: list[dict[str, Any]], connections: int) -> dict[str, Any]:
    for run in runs:
        if run["connections"] == connections:
            return run
    raise KeyError(f"{connections} connections")


def _factor(ours: float, theirs: float, wanted: float) -> tuple[str, bool]:
    return f"{ours / theirs:.1f} × ({ours:,.1f} against {theirs:,.1f})", ours >= wanted * theirs


_BARS: dict[str, Callable[[Modes], tuple[str, bool]]] = {
    "BERT-base, 64 connections: ≥ 90 % of the raw engine": _share_at_64,
    "≥ 10 × Ray's documentation-style chain, float32": _over_chain("float32", 10),
    "≥ 3 × Ray's documentation-style chain, bfloat16": _over_chain("bfloat16", 3),
    "float32: ≥ 1.5 × the fastest peer in float32": _over_fastest("float32", "float32", 1.5),
    "bfloat16: ≥ 1.5 × the fastest peer in bfloat16": _over_fastest("bfloat16", "bfloat16", 1.5),
    "engine: auto ≥ 3 × the fastest peer in float32": _over_fastest("auto", "float32", 3),
    "no model, 256 connections: ≥ 25 × Ray's chain": _null_over("ray-chain", 25),
    "no model, 256 connections: ≥ 2 × LitServe": _null_over("litserve", 2),
    "no model: ahead of LitServe from 16 connections up": _null_ahead,
    "BERT-base, p50 at 1 connection: ≤ 3 ms over the raw engine": _over_single("bert-base"),
    "MiniLM, p50 at 1 connection: ≤ 3 ms over the raw engine": _over_single("minilm"),
    "MiniLM at 90 % of capacity: p99 ≤ 5 × p50 at 1 connection": _p99_at_90,
}
