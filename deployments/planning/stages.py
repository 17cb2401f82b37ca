"""Latency of one request through all parts, as a sample: proxy, ingress, model, labels.

Each part is a queue of its own and they are taken as independent, so that times add up. Calls are
spread over the replicas at random here. Serve's router takes the less loaded of two, which waits
less: what is said here is on the safe side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from deployments.pipeline.types import Float64
from deployments.planning.queueing import (
    N_SAMPLES,
    SEED,
    BatchQueue,
    Calls,
    Device,
    event_loop_waits_s,
)
from deployments.planning.service_times import ServiceTimes, Traffic

# Steps in which a queue is computed: of utilisation, and of the size of calls (a tenth).
_LOAD_STEP = 0.01
_SIZE_STEP = 0.1
_LEAST_LOAD = 1e-5  # of a service that all but sleeps; its queue is as empty
# Levels of the parts' waits, the same for the same part: more load then waits longer everywhere.
_RNG = np.random.default_rng(SEED + 1)
_LEVELS = _RNG.random((5, N_SAMPLES))
_ORDER = _RNG.permutation(N_SAMPLES)
_MOST_BUSY = 0.99
FULL = 0.985
"""Utilisation from which a replica has no balance worth computing: its backlog says more."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many of each deployment run. A planner may take parts of an ingress."""

    ingress: float
    classifiers: int
    postprocessors: int


@dataclass(frozen=True, slots=True)
class Steady:
    """All parts in balance. latency_s: float64 [N_SAMPLES], of requests. busy: shares, 0 to 1."""

    latency_s: Float64
    ingress_busy: float
    classifier_busy: float
    postprocessor_busy: float

    def quantile_s(self, level: float) -> float:
        return float(np.quantile(self.latency_s, level))


def microbatches(
    rate_per_s: float, traffic: Traffic, times: ServiceTimes, call_s: float
) -> tuple[Calls, float]:
    """What one ingress replica sends to the model, and for what share of requests it waits.

    It sends at once where nothing is under way, else when `min_gap_s` have passed since it last
    sent: one cycle is the pause, and a wait for a request where none came in it.

    call_s: how long a call is under way.
    """
    pause_s = min(times.min_gap_s, call_s)
    none = math.exp(-rate_per_s * pause_s)
    per_cycle = rate_per_s * pause_s + none
    most = max(times.max_microbatch_texts / traffic.texts_per_request, 1.0)
    requests = min(per_cycle, most)
    mean = requests * traffic.request_tokens
    alone = traffic.request_square - traffic.request_tokens**2
    variance = (requests - 1) * traffic.request_square + alone
    waits = rate_per_s * pause_s / per_cycle
    return Calls(rate_per_s / requests, mean, mean**2 + variance), waits


def steady(
    rate_per_s: float,
    replicas: Replicas,
    traffic: Traffic,
    times: ServiceTimes,
    device: Device,
    n: int = N_SAMPLES,
) -> Steady:
    """Of so many requests a second; the first n samples of them.

    Raises:
        ValueError: some part is full; which, by how much.
    """
    per_ingress = rate_per_s / replicas.ingress
    ingress_s = times.ingress_s(traffic.texts_per_request)
    waits_s = event_loop_waits_s(per_ingress, ingress_s, _LEVELS[0, :n])
    calls, queue = classifier_queue(rate_per_s, replicas, traffic, times, device)
    model_s = _samples_s(queue)
    pause_s = min(times.min_gap_s, _mean_s(queue))
    _, share = microbatches(per_ingress, traffic, times, _mean_s(queue))
    gaps_s = np.where(_LEVELS[1, :n] < share, pause_s * _LEVELS[2, :n], 0.0)
    calls_per_s = calls.rate_per_s * replicas.classifiers / replicas.postprocessors
    # No queue is kept for it, as a core makes labels faster than any model reads texts.
    calls_per_s = min(calls_per_s, _MOST_BUSY / times.postprocess_call_s)
    labels_s = event_loop_waits_s(calls_per_s, times.postprocess_call_s, _LEVELS[3, :n])
    latency_s = _hops_s(times.hops_s)[:n] + waits_s + gaps_s + model_s[_ORDER[:n]] + labels_s
    return Steady(
        latency_s,
        per_ingress * ingress_s,
        queue.busy,
        calls_per_s * times.postprocess_call_s,
    )


def classifier_queue(
    rate_per_s: float, replicas: Replicas, traffic: Traffic, times: ServiceTimes, device: Device
) -> tuple[Calls, BatchQueue]:
    """The queue before one Classifier. Its figures are rounded, so that few are computed.

    Raises:
        ValueError: the Classifiers are full.
    """
    per_ingress = rate_per_s / replicas.ingress
    calls, _ = microbatches(per_ingress, traffic, times, times.min_gap_s)
    rate = calls.rate_per_s * replicas.ingress / replicas.classifiers
    load = rate * calls.mean_tokens / device.capacity_tokens_per_s
    if load >= FULL:
        needed = rate_per_s * traffic.request_tokens / device.capacity_tokens_per_s
        raise ValueError(
            f"{replicas.classifiers} Classifiers have {needed:.1f} replicas' worth of work"
        )
    step = round(load / _LOAD_STEP) * _LOAD_STEP if load > 0.05 else max(load, _LEAST_LOAD)
    mean = math.exp(round(math.log(calls.mean_tokens) / _SIZE_STEP) * _SIZE_STEP)
    spread = round(calls.square_tokens / calls.mean_tokens**2 - 1, 1)
    queue = _queue(device, round(step, 5), mean, spread)
    return Calls(rate, calls.mean_tokens, calls.square_tokens), queue


@lru_cache(maxsize=4_096)
def _queue(device: Device, load: float, mean_tokens: float, spread: float) -> BatchQueue:
    rate = load * device.capacity_tokens_per_s / mean_tokens
    return BatchQueue(device, Calls(rate, mean_tokens, mean_tokens**2 * (1 + spread)))


@lru_cache(maxsize=4_096)
def _samples(device: Device, calls: Calls) -> Float64:
    return BatchQueue(device, calls).samples_s()


def _samples_s(queue: BatchQueue) -> Float64:
    return _samples(queue.device, queue.calls)


@lru_cache(maxsize=4_096)
def _mean_of(device: Device, calls: Calls) -> float:
    return float(_samples(device, calls).mean())


def _mean_s(queue: BatchQueue) -> float:
    return _mean_of(queue.device, queue.calls)


@lru_cache(maxsize=16)
def _hops_s(quantiles_s: tuple[float, ...]) -> Float64:
    return np.asarray(np.quantile(quantiles_s, _LEVELS[4]), np.float64)
