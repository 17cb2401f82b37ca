"""A day of up to a million requests a second, and the figures that it starts from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deployments.pipeline.types import Float64
from deployments.planning.gpus import GPUS, SHAPES, estimated
from deployments.planning.plan import MAX_BATCH_TOKENS, Hardware, Plan, Wish, plan
from deployments.planning.serve_delays import Autoscaler
from deployments.planning.service_times import (
    CONTROLLER_MOST_REPLICAS,
    PROXY_THREADS,
    ServiceTimes,
    Traffic,
)
from deployments.planning.simulation import NAMES, Outcome, Pool, Simulation
from deployments.planning.traces import day, with_crowd
from deployments.scaling.policy import POLICY

PEAK_PER_S = 1_000_000.0
DAY_PEAK_PER_S, NIGHT_SHARE = 500_000.0, 0.25
CROWD_AT_S, CROWD_FACTOR, CROWD_S, CROWD_RISES_S = 14 * 3_600.0, 2.0, 600.0, 60.0
TRAFFIC = Traffic(80)
SLO_S = 0.2
GPU, MODEL = "l4", "bert-base"
# Assumptions. A start: docs/autoscaling.md measured 9 s for BERT-base on a CPU. A node: clouds take
# minutes to bring one with a GPU and to pull an image.
START_S, CPU_START_S = 15.0, 8.0
GPU_NODE_S, CPU_NODE_S = 240.0, 90.0
CPUS_PER_NODE = 16
IDLE_S = 300.0  # idleTimeoutSeconds of k8s/overlays/gpu
SHIPPED = {
    "metrics_interval_s": 1.0,
    "look_back_period_s": 10.0,
    "upscale_delay_s": 10.0,
    "downscale_delay_s": 300.0,
}
STEP_S = 4.0
SHOWN = ("as shipped: target_busy 0.7", "and half of the plan at all times")
"""Ways whose minutes are kept, for the picture."""
_A_MINUTE = round(60 / STEP_S)


@dataclass(frozen=True, slots=True)
class Way:
    """How the day is met. least: of min_replicas, of the plan for the highest load of the day."""

    name: str
    target_busy: dict[str, float]
    least: float


def trace() -> Float64:
    """Requests a second in windows of STEP_S; the crowd makes it PEAK_PER_S."""
    base = day(DAY_PEAK_PER_S, NIGHT_SHARE, STEP_S)
    shaped = with_crowd(base, CROWD_AT_S, CROWD_FACTOR, CROWD_S, CROWD_RISES_S, STEP_S)
    return np.asarray(shaped * PEAK_PER_S / shaped.max(), np.float64)


def planned(times: ServiceTimes, per_s: float = PEAK_PER_S) -> Plan:
    device = estimated(GPUS[GPU], SHAPES[MODEL], TRAFFIC.tokens_mean, MAX_BATCH_TOKENS)
    wish = Wish(per_s, SLO_S, TRAFFIC, spare=0)
    return plan(wish, device, Hardware(GPUS[GPU].per_node, CPUS_PER_NODE), times)


def ways(best: Plan) -> list[Way]:
    shipped = dict.fromkeys(NAMES, 0.7)
    return [
        Way("as shipped: target_busy 0.7", shipped, 0.0),
        Way("target_busy of the plan", best.target_busy, 0.0),
        Way("and half of the plan at all times", best.target_busy, 0.5),
        Way("the whole plan at all times", best.target_busy, 1.0),
    ]


def simulated(way: Way, best: Plan, times: ServiceTimes, load: Float64) -> Outcome:
    planned_for, night = _by_name(best), _by_name(planned(times, float(load[0])))
    pools = []
    for name in NAMES:
        most = planned_for[name]
        least = max(int(way.least * most), 2)
        policy = {
            "policy_function": POLICY,
            "policy_kwargs": {"target_busy": way.target_busy[name], "max_wait_s": 1.0},
        }
        config = {"min_replicas": least, "max_replicas": 2 * most, **SHIPPED, "policy": policy}
        gpu = name == "Classifier"
        pools.append(
            Pool(
                max(least, night[name]),
                Autoscaler(config),
                START_S if gpu else CPU_START_S,
                GPUS[GPU].per_node if gpu else CPUS_PER_NODE,
                GPU_NODE_S if gpu else CPU_NODE_S,
                IDLE_S,
            )
        )
    return Simulation(pools, TRAFFIC, times, best.device, slo_s=SLO_S, step_s=STEP_S).run(load)


def _by_name(best: Plan) -> dict[str, int]:
    counts = best.replicas
    numbers = (counts.ingress, counts.classifiers, counts.postprocessors)
    return {name: int(n) for name, n in zip(NAMES, numbers, strict=True)}


def summary(way: Way, best: Plan, found: Outcome, times: ServiceTimes) -> dict[str, Any]:
    """Figures of the day, and what the controller and the proxies have to do at its busiest."""
    replicas = np.sum([found.running[name] for name in NAMES], axis=0)
    nodes = np.sum([found.nodes[name] for name in NAMES], axis=0)
    proxy_cores = found.answered_per_s * times.proxy_request_s / nodes
    per_minute = slice(None, None, _A_MINUTE)
    return {
        "name": way.name,
        "attainment": found.attainment,
        "refused": float((found.refused * found.arrivals_per_s).sum() / found.arrivals_per_s.sum()),
        "worst_p99_ms": float(found.p99_s.max() * 1e3),
        "median_p99_ms": float(np.median(found.p99_s) * 1e3),
        "most": {name: int(found.running[name].max()) for name in NAMES},
        "least": {name: int(found.running[name].min()) for name in NAMES},
        "gpu_hours": found.node_hours("Classifier") * GPUS[GPU].per_node,
        "controller_over_share": float((replicas > CONTROLLER_MOST_REPLICAS).mean()),
        "replicas_most": int(replicas.max()),
        "proxy_cores": float(proxy_cores.max()),
        "proxy_of_its_threads": float(proxy_cores.max() / PROXY_THREADS),
        "minutes": {}
        if way.name not in SHOWN
        else {
            "rate_per_s": found.arrivals_per_s[per_minute].round().tolist(),
            "p99_ms": (found.p99_s * 1e3).reshape(-1, _A_MINUTE).max(axis=1).round(1).tolist(),
            "within": found.within.reshape(-1, _A_MINUTE).mean(axis=1).round(5).tolist(),
            **{name: found.running[name][per_minute].tolist() for name in NAMES},
        },
    }


def run(times: ServiceTimes) -> dict[str, Any]:
    best, load = planned(times), trace()
    found = [summary(way, best, simulated(way, best, times, load), times) for way in ways(best)]
    return {
        "gpu": GPUS[GPU].name,
        "model": SHAPES[MODEL].name,
        "tokens_per_s": best.device.tokens_per_s,
        "start_ms": best.device.start_s * 1e3,
        "planned": {
            "Tokenizer": int(best.replicas.ingress),
            "Classifier": best.for_p99,
            "Postprocessor": best.replicas.postprocessors,
        },
        "for_policy": best.for_policy,
        "target_busy": best.target_busy,
        "times": asdict(times),
        "ways": found,
    }
