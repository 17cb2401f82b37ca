"""The fewest replicas that keep a latency, what they cost, and why a wish can't be had."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from deployments.planning.queueing import Device
from deployments.planning.service_times import (
    CONTROLLER_MOST_REPLICAS,
    MOST_NODES,
    PROXY_MAX_CONNECTIONS,
    PROXY_THREADS,
    ServiceTimes,
    Traffic,
)
from deployments.planning.stages import FULL, Replicas, Steady, microbatches, steady
from deployments.scaling.policy import FollowWork, Work

MAX_BATCH_TOKENS = 32_768  # as serve_config.gpu.yaml has it
_LEAST_BATCH_TOKENS = 512  # one text of BERT's own limit
_ROUND_TOKENS = 256
# A search ends where replicas are so empty that more of them change nothing.
_EMPTY = 64
_INGRESS_SHARE = 0.1  # of the p99, for waiting at an ingress
_POSTPROCESSOR_CPUS = 0.5  # as serve_config.gpu.yaml reserves


class Impossible(ValueError):
    """No number of replicas keeps the wish; the message says the number, the limit and the cure."""


@dataclass(frozen=True, slots=True)
class Wish:
    """rps: requests a second at the peak. p99_s: of requests. spare: Classifiers beyond the need,
    so that so many may be lost."""

    rps: float
    p99_s: float
    traffic: Traffic
    target_busy: float = 0.7
    max_wait_s: float = 1.0
    spare: int = 1


@dataclass(frozen=True, slots=True)
class Hardware:
    """gpus_per_node: 0 where Classifiers run on CPUs, one a node. price_per_hour: of a GPU node."""

    gpus_per_node: int
    cpus_per_node: int = 16
    price_per_hour: float | None = None
    cpu_price_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """replicas: that run at the peak, spare ones among them. for_p99: Classifiers that the latency
    needs. for_policy: that the scaling policy would go to at that load, if it could. target_busy:
    deployment → where the policy holds at least what is needed. steady: without spare ones."""

    wish: Wish
    hardware: Hardware
    device: Device
    replicas: Replicas
    for_p99: int
    for_policy: int
    target_busy: dict[str, float]
    steady: Steady
    gpu_nodes: int
    cpu_nodes: int
    warnings: tuple[str, ...]

    @property
    def p99_s(self) -> float:
        return self.steady.quantile_s(0.99)

    @property
    def price_per_hour(self) -> float | None:
        """Of all nodes, CPU nodes beside GPUs at 0 where nobody said theirs; None: not known."""
        of_gpu, of_cpu = self.hardware.price_per_hour, self.hardware.cpu_price_per_hour
        if not self.hardware.gpus_per_node:
            of_gpu = of_cpu
        if of_gpu is None:
            return None
        return self.gpu_nodes * of_gpu + self.cpu_nodes * (of_cpu or 0.0)

    @property
    def price_per_million_texts(self) -> float | None:
        """At the peak, where all are at work."""
        if self.price_per_hour is None:
            return None
        texts_per_h = self.wish.rps * self.wish.traffic.texts_per_request * 3_600
        return self.price_per_hour / texts_per_h * 1e6


def plan(wish: Wish, device: Device, hardware: Hardware, times: ServiceTimes) -> Plan:
    """The fewest Classifiers, with as many Tokenizers and Postprocessors as the policy would have.

    Raises:
        Impossible: the p99 is below what an empty service takes, or no number reaches it.
    """
    device = replace(device, max_batch_tokens=batch_tokens(wish, device))
    traffic, policy = wish.traffic, FollowWork(wish.target_busy, wish.max_wait_s)
    empty_s = lone_s(traffic, device, times)
    if empty_s > wish.p99_s:
        raise Impossible(_too_fast(wish, device, times, empty_s))
    ingress_busy = wish.rps * times.ingress_s(traffic.texts_per_request)
    # Not whole here: where one more Tokenizer comes, its smaller micro-batches must not make a
    # larger load need fewer Classifiers.
    ingress = max(_held(policy, ingress_busy), ingress_busy / _calm(wish, times), 2.0)
    for_p99 = _fewest(wish, ingress, device, times)
    if for_p99 is None:
        found = _steady(wish, ingress, _EMPTY * _full(wish, device), device, times)
        raise Impossible(
            f"p99 of {wish.p99_s * 1e3:g} ms can't be kept at {wish.rps:,.0f} requests/s: with "
            f"Classifiers that are all but idle it is {found.quantile_s(0.99) * 1e3:.1f} ms. Wish "
            f"for more than that, or lower args.batching.min_gap_ms ({times.min_gap_s * 1e3:g} ms)."
        )
    for_policy = _held_classifiers(wish, policy, ingress, for_p99, device, times)
    spread = _postprocessors(wish, math.ceil(ingress), times)
    replicas = Replicas(math.ceil(ingress), for_p99 + wish.spare, spread)
    found = _steady(wish, replicas.ingress, for_p99, device, times)
    target_busy = {
        "Tokenizer": _target_busy(wish, ingress_busy, replicas.ingress),
        "Classifier": _target_busy(wish, for_p99 * found.classifier_busy, for_p99),
        "Postprocessor": _target_busy(wish, spread * found.postprocessor_busy, spread),
    }
    gpu_nodes = math.ceil(replicas.classifiers / max(hardware.gpus_per_node, 1))
    proxy_cpus = wish.rps * times.proxy_request_s
    cpus = replicas.ingress + _POSTPROCESSOR_CPUS * replicas.postprocessors + proxy_cpus
    cpu_nodes = max(math.ceil(cpus / hardware.cpus_per_node), 2)
    warnings = _warnings(wish, replicas, gpu_nodes + cpu_nodes, found, times)
    if gpu_nodes == 1 and replicas.classifiers > 1:
        warnings += ("All Classifiers are on one node, and end with it: take smaller nodes.",)
    return Plan(wish, hardware, device, replicas, for_p99, for_policy, target_busy, found,
                gpu_nodes, cpu_nodes, warnings)  # fmt: skip


def batch_tokens(wish: Wish, device: Device) -> int:
    """As many as a pass reads in half of the p99: a text may wait for one pass and run in the next.

    At least one long text, and no more than the device was said to take.
    """
    half = (wish.p99_s / 2 - device.start_s) * device.tokens_per_s
    rounded = int(half // _ROUND_TOKENS * _ROUND_TOKENS)
    return min(max(rounded, _LEAST_BATCH_TOKENS), device.max_batch_tokens)


def lone_s(traffic: Traffic, device: Device, times: ServiceTimes) -> float:
    """A request in an empty service, in the slower half of cases: its hops, and one pass."""
    median_s = times.hops_s[len(times.hops_s) // 2]
    return median_s + device.pass_s(traffic.request_tokens)


def _too_fast(wish: Wish, device: Device, times: ServiceTimes, empty_s: float) -> str:
    one_s = device.pass_s(wish.traffic.request_tokens)
    return (
        f"p99 of {wish.p99_s * 1e3:g} ms can't be had: a lone request takes "
        f"{empty_s * 1e3:.1f} ms, {one_s * 1e3:.1f} ms of it one pass over "
        f"{wish.traffic.request_tokens:,.0f} tokens. Wish for more than {empty_s * 1e3:.0f} ms, or "
        "take a faster GPU, a smaller model or shorter texts."
    )


def _full(wish: Wish, device: Device) -> int:
    """Classifiers that would all be full."""
    tokens_per_s = wish.rps * wish.traffic.request_tokens
    return max(math.ceil(tokens_per_s / (FULL * device.capacity_tokens_per_s) + 1e-9), 1)


def _calm(wish: Wish, times: ServiceTimes) -> float:
    """How busy a Tokenizer may be so that one request in a hundred waits a tenth of the p99.

    ρ·e^(−(1−ρ)t/s) = 0.01, by bisection. Proxies each know their own requests only, so Tokenizers
    are no common pool: the square root of the policy would fill many of them too much.
    """
    s, t = times.ingress_s(wish.traffic.texts_per_request), _INGRESS_SHARE * wish.p99_s
    low, high = 0.01, 0.99
    for _ in range(40):
        middle = (low + high) / 2
        late = middle * math.exp(-(1 - middle) * t / s)
        low, high = (middle, high) if late < 0.01 else (low, middle)
    return low


def _held(policy: FollowWork, busy: float) -> float:
    """Replicas that the policy wants for so many replicas' worth of busy time."""
    work = Work(busy, 0.0, 1)
    return replace(policy).wanted(work, 0.0, target=0, running=1, look_back_s=0.0)


def _fewest(wish: Wish, ingress: float, device: Device, times: ServiceTimes) -> int | None:
    """By bisection: more Classifiers answer no later."""

    def keeps(n: int) -> bool:
        try:
            return _steady(wish, ingress, n, device, times).quantile_s(0.99) <= wish.p99_s
        except ValueError:
            return False

    low, high = _full(wish, device), _EMPTY * _full(wish, device)
    if not keeps(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle + 1, high)
    return low


def _held_classifiers(
    wish: Wish, policy: FollowWork, ingress: float, n: int, device: Device, times: ServiceTimes
) -> int:
    """Where the policy comes to rest: each one more makes all of them less busy."""
    while True:
        found = _steady(wish, ingress, n, device, times)
        wanted = math.ceil(_held(policy, n * found.classifier_busy) - 1e-6)
        if wanted <= n:
            return n
        n = wanted


def _target_busy(wish: Wish, busy: float, needed: float) -> float:
    """With it the policy wants no less than what is needed for that busy time: the root of
    needed = busy + (1 − x)/√x · √busy, in hundredths, and no more than is wished for."""
    k = (needed - busy) / math.sqrt(max(busy, 1e-9))
    root = (math.sqrt(k**2 + 4) - k) / 2
    return min(wish.target_busy, max(math.floor(100 * root**2) / 100, 0.01))


def _postprocessors(wish: Wish, ingress: float, times: ServiceTimes) -> int:
    """Enough to be half busy with a call for each micro-batch."""
    calls, _ = microbatches(wish.rps / ingress, wish.traffic, times, times.min_gap_s)
    return max(math.ceil(2 * calls.rate_per_s * ingress * times.postprocess_call_s), 2)


def _steady(
    wish: Wish, ingress: float, classifiers: int, device: Device, times: ServiceTimes
) -> Steady:
    replicas = Replicas(ingress, classifiers, _postprocessors(wish, ingress, times))
    return steady(wish.rps, replicas, wish.traffic, times, device)


def _warnings(
    wish: Wish, replicas: Replicas, nodes: int, found: Steady, times: ServiceTimes
) -> tuple[str, ...]:
    """Limits of what was never measured, or only by others."""
    told = []
    n = math.ceil(replicas.ingress + replicas.classifiers + replicas.postprocessors)
    if n > CONTROLLER_MOST_REPLICAS:
        told.append(
            f"{n:,} replicas; Serve's controller is known to keep up with "
            f"{CONTROLLER_MOST_REPLICAS:,} that autoscale (Ray issue 60680). Run several clusters "
            "behind one load balancer."
        )
    if nodes > MOST_NODES:
        told.append(f"{nodes:,} nodes; Ray tests its releases with {MOST_NODES:,}. Split it.")
    per_proxy = wish.rps / nodes
    if per_proxy * times.proxy_request_s > PROXY_THREADS:
        most = PROXY_THREADS / times.proxy_request_s
        told.append(
            f"{per_proxy:,.0f} requests/s for each node's HAProxy, whose {PROXY_THREADS} threads "
            f"do {most:,.0f}. More and smaller nodes, or RAY_SERVE_HAPROXY_NBTHREAD."
        )
    under_way = per_proxy * found.quantile_s(0.5)
    if under_way > PROXY_MAX_CONNECTIONS:
        told.append(
            f"{under_way:,.0f} requests under way in each HAProxy, which takes "
            f"{PROXY_MAX_CONNECTIONS:,}: raise RAY_SERVE_HAPROXY_MAXCONN."
        )
    return tuple(told)
