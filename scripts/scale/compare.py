"""The simulation of what was measured, and how far it is off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from deployments.pipeline.types import Float64
from deployments.planning.queueing import Device
from deployments.planning.serve_delays import Autoscaler
from deployments.planning.service_times import MEASURED, ServiceTimes, Traffic
from deployments.planning.simulation import Outcome, Pool, Simulation
from deployments.planning.stages import Replicas, steady
from deployments.scaling.policy import POLICY
from tests.trials import pretended_gpus

from .device import START_S, TOKENS_PER_S
from .measure import (
    BIN_S,
    DELAYS,
    MAX_BATCH_TOKENS,
    MAX_WAIT_S,
    MOST,
    PER_S,
    TARGET_BUSY,
    TEXTS,
    TOKENS,
    TRACE_S,
    arrivals,
    needs,
)

DEVICE = Device(START_S, TOKENS_PER_S, MAX_BATCH_TOKENS)
TRAFFIC = Traffic(TOKENS, TEXTS, spread=0.0)
PATIENCE_S = 50.0
LEVELS = np.linspace(0.005, 0.995, 100)
SLO_S = 2.0
RECORDED_START_S = 6.6
"""Of a Classifier on the machine of the trial `gpus`, quiet: docs/autoscaling.md."""


def fitted(runs: Sequence[dict[str, Any]]) -> ServiceTimes:
    """What the parts took in these runs; what no run tells stays as MEASURED has it."""
    lists = [run for run in runs if run["texts"] == TEXTS and "share" in run]
    # The first of SINGLES finds an empty service, the last gives the CPU time of a single text.
    lone, singles = sorted((r for r in runs if r["texts"] == 1), key=lambda r: r["rate_per_s"])
    idle, list_s = _by_request(lists, "Tokenizer")
    single_s = singles["cpu_s"]["Tokenizer"] - idle * singles["cpu_s"]["elapsed"]
    single_s /= singles["all_requests"]
    text_s = max(list_s - single_s, 0.0) / (TEXTS - 1)
    hops = np.asarray(lone["quantiles_s"]) - DEVICE.pass_s(TOKENS)
    _, postprocess_s = _by_request(lists, "Postprocessor")
    _, proxy_s = _by_request(runs, "haproxy")
    return replace(
        MEASURED,
        ingress_request_s=round(max(single_s - text_s, 0.0), 6),
        ingress_text_s=round(text_s, 7),
        postprocess_call_s=round(postprocess_s, 6),
        proxy_request_s=round(proxy_s, 6),
        hops_s=tuple(np.quantile(np.maximum(hops, 0.0), np.linspace(0, 1, 11)).round(4).tolist()),
    )


def _by_request(runs: Sequence[dict[str, Any]], part: str) -> tuple[float, float]:
    """Share of a core at rest, and seconds of CPU time a request: least squares over runs."""
    cpu = np.array([run["cpu_s"][part] for run in runs])
    elapsed = np.array([run["cpu_s"]["elapsed"] for run in runs])
    requests = np.array([run["all_requests"] for run in runs], np.float64)
    (idle, each), *_ = np.linalg.lstsq(np.stack([elapsed, requests], 1), cpu, rcond=None)
    return max(float(idle), 0.0), max(float(each), 0.0)


def compared_fixed(runs: Sequence[dict[str, Any]], times: ServiceTimes) -> list[dict[str, Any]]:
    """Measured and simulated of each run: p50, p95, p99 in ms, or answers a second."""
    rows = []
    for run in runs:
        if run["texts"] != TEXTS:
            continue
        n = run["classifiers"]
        row: dict[str, Any] = {"classifiers": n, "requests": run["requests"]}
        if "share" in run:
            found = steady(run["rate_per_s"], Replicas(1, n, 1), TRAFFIC, times, DEVICE)
            measured = np.quantile(run["quantiles_s"], (0.5, 0.95)).tolist()
            row |= {"share": run["share"], "rate_per_s": run["rate_per_s"]}
            for name, level, was in (
                ("p50", 0.5, measured[0] * 1e3),
                ("p95", 0.95, measured[1] * 1e3),
                ("p99", 0.99, run["p99_ms"]),
            ):
                simulated = found.quantile_s(level) * 1e3
                row[name] = {"measured": was, "simulated": simulated, "error": simulated / was - 1}
        else:
            most = min(n * PER_S, 1 / times.ingress_s(TEXTS))
            was = run["answers_per_s"]
            row |= {"connections": run["connections"]}
            row["per_s"] = {"measured": was, "simulated": most, "error": most / was - 1}
        rows.append(row)
    return rows


def autoscaling() -> dict[str, Any]:
    """As the trial's Classifier had it."""
    kwargs = {"target_busy": TARGET_BUSY, "max_wait_s": MAX_WAIT_S}
    policy = {"policy_function": POLICY, "policy_kwargs": kwargs}
    return {"min_replicas": 1, "max_replicas": MOST, **DELAYS, "policy": policy}


def start_s(series: Sequence[dict[str, Any]]) -> float:
    """Mean seconds from the decision for one more replica until it runs."""
    took = []
    for n in range(2, max(one["running"] for one in series) + 1):
        asked = next(one["at_s"] for one in series if one["target"] >= n)
        ran = next(one["at_s"] for one in series if one["running"] >= n)
        took.append(ran - asked)
    return float(np.mean(took))


def simulated_scaling(times: ServiceTimes, starts_s: float) -> Outcome:
    pool = Pool(1, Autoscaler(autoscaling()), start_s=starts_s)
    simulation = Simulation(
        [Pool(1), pool, Pool(1)], TRAFFIC, times, DEVICE, slo_s=SLO_S, max_queue_s=PATIENCE_S
    )
    due = arrivals(lambda t: needs(t) * PER_S, MOST * PER_S, TRACE_S)
    return simulation.run(by_second(due, TRACE_S))


def by_second(due_s: Sequence[float], seconds: float) -> Float64:
    """Requests that were due in each second, as the run had them: chance and all."""
    counts = np.bincount(np.asarray(due_s, np.int64), minlength=round(seconds))
    return counts.astype(np.float64)


def compared_scaling(part: dict[str, Any], times: ServiceTimes) -> dict[str, Any]:
    """Replicas over time, replica-seconds and p50 of measured and simulated, and their errors."""
    series = part["series"]
    starts_s = start_s(series)
    found = simulated_scaling(times, starts_s)
    seconds = np.arange(len(found.p50_s))
    at = np.array([one["at_s"] for one in series])
    there = np.array([one["running"] for one in series])
    measured = there[np.clip(np.searchsorted(at, seconds), 0, len(at) - 1)]
    replicas = found.running["Classifier"]
    bins = []
    for one in part["bins"]:
        window = slice(int(one["at_s"]), int(one["at_s"] + BIN_S))
        simulated = found.quantile_s(0.5, window) * 1e3, found.quantile_s(0.99, window) * 1e3
        bins.append({"at_s": one["at_s"], "requests": one["requests"],
                     "measured": one["p50_ms"], "simulated": simulated[0],
                     "measured_p99": one["p99_ms"], "simulated_p99": simulated[1]})  # fmt: skip
    return {
        "start_s": starts_s,
        "running": {"measured": measured.tolist(), "simulated": replicas.tolist()},
        "replica_s": {
            "measured": int(measured.sum()),
            "simulated": int(replicas.sum()),
            "error": float(replicas.sum() / measured.sum() - 1),
        },
        "most": {"measured": int(measured.max()), "simulated": int(replicas.max())},
        "off_by": float(np.abs(measured - replicas).mean()),
        "p50": bins,
        "p50_error": _middle([(b["simulated"], b["measured"]) for b in bins]),
        # Of fewer requests than a hundred there is no p99.
        "p99_error": _middle(
            [(b["simulated_p99"], b["measured_p99"]) for b in bins if b["requests"] >= 100]
        ),
        "all": {
            name: _pair(part[f"{name}_ms"], found.quantile_s(level) * 1e3)
            for name, level in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
    }


def _middle(pairs: Sequence[tuple[float, float]]) -> float:
    """The median error of so many times as much or as little: 0.1 is a tenth off."""
    return float(np.expm1(np.median([abs(np.log(one / other)) for one, other in pairs])))


def compared_growth(growth: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers a second of the benchmark's mode `growth`: callers that never pause, single texts,
    devices that take no time beside their tokens. The formula knows no machine of two cores."""
    tokens = growth["workload"]["tokens_mean"]
    rows = []
    for run in growth["replicas"]:
        if run["kind"] == "waiting":
            n = run["replicas"]["Classifier"]
            per_s = n * growth["waiting_tokens_per_s"] / tokens
            rows.append({"classifiers": n, "per_s": _pair(run["requests_per_s"], per_s)})
    return rows


def compared(
    modes: dict[str, Any], recorded: dict[str, Any], growth: dict[str, Any]
) -> dict[str, Any]:
    """The simulation of the real runs, beside them. recorded: figures of the trial `gpus`.

    growth: of the benchmark's mode of that name.
    """
    times = fitted(modes["fixed"]["runs"]) if "fixed" in modes else MEASURED
    scaling = compared_scaling(modes["scaling"], times)
    return {
        "fixed": compared_fixed(modes["fixed"]["runs"], times) if "fixed" in modes else [],
        "growth": compared_growth(growth),
        "scaling": scaling,
        "recorded": compared_recorded(recorded),
    }


def compared_recorded(figures: dict[str, Any]) -> dict[str, Any]:
    """The trial `gpus` of docs/reliability.json, which nothing here was fitted to: ten minutes of
    a ramp, a crowd and a day on up to 8 devices of 20,000 tokens/s, with requests of 4,096 tokens.

    figures: of the trial.
    """
    due = pretended_gpus.arrivals(pretended_gpus.TRACE)
    device, traffic = Device(0.0, TOKENS_PER_S, 4_096), Traffic(64, 64, spread=0.0)
    config = {**autoscaling(), **DELAYS, "downscale_delay_s": 60.0}
    pool = Pool(1, Autoscaler(config), start_s=RECORDED_START_S)
    simulation = Simulation(
        [Pool(2), pool, Pool(2)], traffic, MEASURED, device, slo_s=SLO_S, max_queue_s=PATIENCE_S
    )
    seconds = sum(stretch.seconds for stretch in pretended_gpus.TRACE)
    found = simulation.run(by_second(due, seconds))
    ours = figures["runs"][0]
    rows, began = [], 0
    for stretch in figures["trace"]:
        window = slice(began, began + round(stretch["seconds"]))
        began = window.stop
        told = next((one for one in ours["stretches"] if one["name"] == stretch["name"]), None)
        if told is None:
            continue
        held = np.maximum(found.running["Classifier"], found.target["Classifier"])[window]
        rows.append({
            "name": stretch["name"],
            "p50": _pair(told["p50_ms"], 1e3 * found.quantile_s(0.5, window)),
            "p99": _pair(told["p99_ms"], 1e3 * found.quantile_s(0.99, window)),
            "replica_s": _pair(told["replica_s"], float(held.sum())),
            "most": {"measured": told["most"], "simulated": int(held.max())},
        })  # fmt: skip
    held_all = np.maximum(found.running["Classifier"], found.target["Classifier"])
    rows.append({
        "name": "all of it",
        "p50": _pair(ours["p50_ms"], 1e3 * found.quantile_s(0.5)),
        "p99": _pair(ours["p99_ms"], 1e3 * found.quantile_s(0.99)),
        "replica_s": _pair(ours["replica_s"], float(held_all.sum())),
        "most": {"measured": ours["most"], "simulated": int(held_all.max())},
    })  # fmt: skip
    return {"stretches": rows, "replica_s": rows[-1]["replica_s"]}


def _pair(measured: float, simulated: float) -> dict[str, float]:
    return {"measured": measured, "simulated": simulated, "error": simulated / measured - 1}
