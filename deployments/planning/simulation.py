"""The service in windows of a second: load, queues, scaling policy, latency, cost.

Within a window everything is a fluid. What comes and can be answered is; what can't waits, and
what would wait longer than `max_queue_s` is refused. Latency is that of the parts in balance
(stages.py), and the wait for the backlog on top. Replicas follow `Scaler`s, which are told what
replicas would report.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from deployments.pipeline.types import Float64
from deployments.planning.queueing import Device, relaxation_s
from deployments.planning.service_times import ServiceTimes, Traffic
from deployments.planning.stages import FULL, Replicas, classifier_queue, steady
from deployments.scaling.policy import Work

NAMES = ("Tokenizer", "Classifier", "Postprocessor")
# Work is the mean of the last two reports, as the policy has it.
_REPORTS = 2
_IDLE_PER_S = 1e-6
_SAMPLES = 1_000
N_LEVELS = 50
LEVELS = np.append(np.linspace(0, 0.98, N_LEVELS), (0.99, 0.998))
"""p50 is one of them, and p99 the last but one."""
# The share of requests that each level stands for: those nearer to it than to its neighbours.
_SHARES = np.diff(np.concatenate(([0.0], (LEVELS[1:] + LEVELS[:-1]) / 2, [1.0])))
# Utilisation at which passes and their scatter are taken where a backlog waits.
_BEHIND = 0.9


class Scaler(Protocol):
    def target(self, work: Work, now: float, *, target: int, running: int) -> int: ...


@dataclass
class Fixed:
    """As many replicas as there are."""

    def target(self, work: Work, now: float, *, target: int, running: int) -> int:
        return target


@dataclass
class Pool:
    """The replicas of one deployment, and the nodes that hold them.

    start_s: from the decision until a replica answers, on a node that is there; node_start_s: more
    where a node must come first. A node stays idle_s without a replica.
    """

    replicas: int
    scaler: Scaler = field(default_factory=Fixed)
    start_s: float = 10.0
    per_node: int = 1
    node_start_s: float = 0.0
    idle_s: float = 300.0

    def __post_init__(self) -> None:
        self.target = self.running = self.replicas
        self._starting: list[float] = []
        self._reports: deque[Work] = deque(maxlen=_REPORTS)
        self._held: deque[tuple[float, int]] = deque([(0.0, self._nodes_for(self.replicas))])
        # When each node is there, in the order in which they are filled.
        self._node_at_s = [0.0] * self.nodes

    @property
    def nodes(self) -> int:
        return self._held[0][1]

    def _nodes_for(self, replicas: int) -> int:
        return -(-replicas // self.per_node)

    def begin(self, now: float) -> None:
        """Replicas that are up by now serve."""
        ready = bisect_right(self._starting, now)
        self.running += ready
        self._starting = self._starting[ready:]

    def end(self, now: float, work: Work) -> None:
        """Hears what its replicas say, and lets replicas come and go."""
        self._reports.append(work)
        n = len(self._reports)
        mean = Work(
            sum(one.busy for one in self._reports) / n,
            sum(one.wait_s for one in self._reports) / n,
            self._reports[0].reporting,
        )
        self.target = self.scaler.target(mean, now, target=self.target, running=self.running)
        there = self.running + len(self._starting)
        if self.target > there:
            for number in range(there, self.target):
                node = number // self.per_node
                if node == len(self._node_at_s):
                    self._node_at_s.append(now + self.node_start_s)
                self._starting.append(max(now, self._node_at_s[node]) + self.start_s)
            self._starting.sort()
        elif self.target < there:
            # Those that have not come yet go first.
            kept = max(self.target - self.running, 0)
            self._starting = self._starting[:kept]
            self.running = min(self.running, self.target)
        # The most of the last idle_s, as a queue whose numbers fall: the first is the most.
        needed = self._nodes_for(max(self.target, self.running))
        while self._held and self._held[-1][1] <= needed:
            self._held.pop()
        self._held.append((now, needed))
        while self._held[0][0] < now - self.idle_s:
            self._held.popleft()
        del self._node_at_s[self.nodes :]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Windows, one value each. Times in seconds, rates a second; `within` and `refused` are shares
    of what came: answered within slo_s, and refused. latency_s: float64 [windows, len(LEVELS)], at
    LEVELS."""

    step_s: float
    arrivals_per_s: Float64
    answered_per_s: Float64
    running: dict[str, np.ndarray]
    target: dict[str, np.ndarray]
    nodes: dict[str, np.ndarray]
    busy: dict[str, Float64]
    p50_s: Float64
    p99_s: Float64
    within: Float64
    refused: Float64
    latency_s: Float64

    def quantile_s(self, level: float, window: slice = slice(None)) -> float:
        """Of all requests that were answered in these windows."""
        latency_s = self.latency_s[window]
        weights = np.outer(self.answered_per_s[window], _SHARES)
        order = np.argsort(latency_s, axis=None)
        up_to = np.cumsum(weights.ravel()[order])
        return float(latency_s.ravel()[order][np.searchsorted(up_to, level * up_to[-1])])

    @property
    def attainment(self) -> float:
        """Share of all requests that were answered within slo_s."""
        return float((self.within * self.arrivals_per_s).sum() / self.arrivals_per_s.sum())

    def node_hours(self, name: str) -> float:
        return float(self.nodes[name].sum() * self.step_s / 3_600)


@dataclass
class Simulation:
    """The three deployments under one traffic. pools: in the order of NAMES."""

    pools: Sequence[Pool]
    traffic: Traffic
    times: ServiceTimes
    device: Device
    slo_s: float
    max_queue_s: float = 10.0
    step_s: float = 1.0

    def run(self, trace: Float64) -> Outcome:
        """trace: requests a second, of each window."""
        rows = [self._window(k * self.step_s, float(rate)) for k, rate in enumerate(trace)]
        columns = [np.array(column) for column in zip(*(row for row, _ in rows), strict=True)]
        latency_s = np.stack([levels for _, levels in rows])
        by_name = [dict(zip(NAMES, columns[i : i + 3], strict=True)) for i in (0, 3, 6, 9)]
        answered, p50, p99, within, refused = columns[12:]
        return Outcome(self.step_s, np.asarray(trace, np.float64), answered, by_name[0], by_name[1],
                       by_name[2], by_name[3], p50, p99, within, refused, latency_s)  # fmt: skip

    def __post_init__(self) -> None:
        self._ingress_backlog = 0.0  # requests
        self._backlog_tokens = 0.0
        self._settled = 0.0  # the load whose balance the queue of the Classifiers has come to

    def _settle(self, load: float) -> float:
        """A queue comes to its balance the later, the fuller it is; see `relaxation_s`."""
        read_s = self.traffic.request_tokens / self.device.capacity_tokens_per_s
        behind = math.exp(-self.step_s / relaxation_s(load, read_s))
        self._settled = load - (load - self._settled) * behind
        return self._settled

    def _window(self, now: float, rate_per_s: float) -> tuple[tuple[float, ...], Float64]:
        ingress, classifiers, postprocessors = self.pools
        for pool in self.pools:
            pool.begin(now)
        step_s, tokens = self.step_s, self.traffic.request_tokens
        ingress_s = self.times.ingress_s(self.traffic.texts_per_request)
        ingress_per_s = ingress.running / ingress_s
        read_per_s = classifiers.running * self.device.capacity_tokens_per_s
        # The gate refuses what would wait too long, before it costs anything.
        came = rate_per_s * step_s
        waiting = self._ingress_backlog * tokens + self._backlog_tokens
        room = (self.max_queue_s + step_s) * read_per_s - waiting
        room = min(
            room / tokens, (self.max_queue_s + step_s) * ingress_per_s - self._ingress_backlog
        )
        taken = min(came, max(room, 0.0))
        before = self._ingress_backlog, self._backlog_tokens
        passed = min(before[0] + taken, ingress_per_s * step_s)
        self._ingress_backlog = before[0] + taken - passed
        read = min(before[1] + passed * tokens, read_per_s * step_s)
        self._backlog_tokens = before[1] + passed * tokens - read
        waited_s = 0.0
        for was, left, per_s in (
            (before[0], self._ingress_backlog, ingress_per_s),
            (before[1], self._backlog_tokens, read_per_s),
        ):
            waited_s += (was + left) / 2 / per_s if per_s else self.max_queue_s * (was + left > 0)
        # The parts in balance, at what passes. Where a backlog waits, the wait for it is known, and
        # the endless queue of a full part in balance must not count on top.
        flow = read / tokens / step_s
        calm = _BEHIND if self._backlog_tokens or before[1] else 0.999 * FULL
        calm_ingress = _BEHIND if self._ingress_backlog else 0.99
        safe = min(flow, calm * read_per_s / tokens, calm_ingress * ingress_per_s)
        if safe > _IDLE_PER_S:
            replicas = Replicas(ingress.running, classifiers.running, postprocessors.running)
            told = self.traffic, self.times, self.device
            settled = self._settle(safe * tokens / read_per_s) * read_per_s / tokens
            found = steady(max(settled, _IDLE_PER_S), replicas, *told, _SAMPLES)
            latency_s = found.latency_s + waited_s
            _, queue = classifier_queue(safe, replicas, *told)
            busy = [found.ingress_busy, queue.busy, found.postprocessor_busy]
        else:
            latency_s, busy = np.array([waited_s]), [0.0, 0.0, 0.0]
        if self._ingress_backlog:
            busy[0] = 1.0
        if self._backlog_tokens:
            busy[1] = 1.0
        levels = np.quantile(latency_s, LEVELS)
        p50, p99 = levels[N_LEVELS // 2], levels[-2]
        answered_share = taken / came if came else 1.0
        within = float((latency_s <= self.slo_s).mean()) * answered_share
        # What an ingress has taken in, by the speed of one Classifier: `ahead_s`. What waits for
        # a full event loop is not taken in yet, and nobody counts it.
        under_way = flow * float(latency_s.mean() - waited_s) * tokens
        ahead_s = (under_way + self._backlog_tokens) / self.device.capacity_tokens_per_s
        for pool, share, wait_s in zip(self.pools, busy, (0.0, ahead_s, 0.0), strict=True):
            pool.end(now, Work(share * pool.running, wait_s, pool.running))
        row = (
            *(pool.running for pool in self.pools),
            *(pool.target for pool in self.pools),
            *(pool.nodes for pool in self.pools),
            *busy,
            flow,
            p50,
            p99,
            within,
            1 - answered_share,
        )
        return row, np.asarray(levels, np.float64)
