"""How long texts wait for a replica that batches by tokens, and for an event loop: by formula.

The queue of `TokenBatcher`: calls arrive in a Poisson process, each with some tokens. When the
model is free, all that waits goes into one pass of start_s + tokens / tokens_per_s seconds, up to
`max_batch_tokens`. What waits when a pass ends is a Markov chain (bulk service: Bailey 1954,
doi:10.1111/j.2517-6161.1954.tb00149.x; with times linear in the batch, for GPUs: Inoue 2021,
doi:10.1016/j.peva.2020.102183). Its balance is computed, not approximated: it is exact where all
calls have one size. Calls of many sizes are replaced by equal ones with the same mean and
variance of tokens a second. A test holds it to a simulation of single calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deployments.pipeline.types import Float64

N_SAMPLES = 4_000
SEED = 20261129
# States of the chain; where more would be needed, calls are put together.
_MAX_STATES = 400
# So many standard deviations of what waits are kept.
_WIDTH = 8.0


@dataclass(frozen=True, slots=True)
class Device:
    """One Classifier. Seconds of a pass = start_s + tokens / tokens_per_s."""

    start_s: float
    tokens_per_s: float
    max_batch_tokens: int

    @property
    def full_pass_s(self) -> float:
        return self.pass_s(self.max_batch_tokens)

    @property
    def capacity_tokens_per_s(self) -> float:
        """What full passes read."""
        return self.max_batch_tokens / self.full_pass_s

    def pass_s(self, tokens: float) -> float:
        return self.start_s + tokens / self.tokens_per_s


@dataclass(frozen=True, slots=True)
class Calls:
    """What arrives at one replica. rate_per_s: calls; mean, square: E[X], E[X²] of their tokens."""

    rate_per_s: float
    mean_tokens: float
    square_tokens: float

    @property
    def tokens_per_s(self) -> float:
        return self.rate_per_s * self.mean_tokens


@dataclass(frozen=True)
class BatchQueue:
    """One replica in balance, with some calls to answer.

    Raises:
        ValueError: more arrives than full passes read, or nothing.
    """

    device: Device
    calls: Calls

    def __post_init__(self) -> None:
        if not 0 < self.utilisation < 1:
            raise ValueError(
                f"{self.calls.tokens_per_s:,.0f} tokens/s arrive and full passes read "
                f"{self.device.capacity_tokens_per_s:,.0f}: no balance"
            )

    @property
    def utilisation(self) -> float:
        """Tokens that arrive, of those that full passes read: 0 to 1."""
        return self.calls.tokens_per_s / self.device.capacity_tokens_per_s

    @cached_property
    def busy(self) -> float:
        """The share of time in which a pass runs, which is what replicas report: 0 to 1.

        High long before the replica is full, as a short pass starts as soon as a full one would.
        """
        chain = self._chain
        running_s = float(chain.balance @ chain.pass_s)
        return running_s / (running_s + float(chain.balance[0]) / chain.rate_per_s)

    def samples_s(self) -> Float64:
        """Seconds from arrival to answer of calls: float64 [N_SAMPLES], the same for the same."""
        device, chain, rng = self.device, self._chain, np.random.default_rng(SEED)
        own = self._own_tokens(rng.random(N_SAMPLES))
        own_passes = np.ceil(own / device.max_batch_tokens) - 1
        # By the length of its pass: a long one is met more often.
        weight = chain.balance * chain.pass_s
        waiting = rng.choice(len(weight), N_SAMPLES, p=weight / weight.sum())
        current_s, gone = chain.pass_s[waiting], rng.random(N_SAMPLES)
        most = chain.most_units
        ahead = np.maximum(waiting - most, 0) + rng.poisson(chain.rate_per_s * gone * current_s)
        full = ahead // most
        beside = ahead - full * most
        beside += rng.poisson(
            chain.rate_per_s * ((1 - gone) * current_s + full * device.full_pass_s)
        )
        tokens = np.minimum(beside, most - 1) * chain.unit_tokens + own
        waited = (1 - gone) * current_s + full * device.full_pass_s
        finds_busy = rng.random(N_SAMPLES) < self.busy
        tokens = np.where(finds_busy, tokens, own)
        last_s = device.start_s + np.minimum(tokens, device.max_batch_tokens) / device.tokens_per_s
        return np.where(finds_busy, waited, 0.0) + own_passes * device.full_pass_s + last_s

    def _own_tokens(self, u: Float64) -> Float64:
        """Sizes of calls at these levels: Weibull with their mean and, within 1 %, their variance.

        Shape by Justus and others 1978: spread^−1.086.
        """
        calls = self.calls
        spread = math.sqrt(max(calls.square_tokens / calls.mean_tokens**2 - 1, 0.0))
        if spread < 0.01:
            return np.full_like(u, calls.mean_tokens)
        power = spread**1.086
        sizes = calls.mean_tokens * (-np.log1p(-u)) ** power / math.gamma(1 + power)
        return np.asarray(sizes, np.float64)

    @cached_property
    def _chain(self) -> _Chain:
        return _Chain.of(self.device, self.calls)


@dataclass(frozen=True, slots=True)
class _Chain:
    """What waits when a pass ends, in units. balance: float64 [states], the probability of each.

    pass_s: float64 [states], how long the pass takes that follows: of one unit after none waited.
    """

    unit_tokens: float
    most_units: int
    rate_per_s: float
    balance: Float64
    pass_s: Float64

    @staticmethod
    def of(device: Device, calls: Calls) -> _Chain:
        unit = calls.square_tokens / calls.mean_tokens
        while True:
            # As many as fill a pass, and no rest: full passes read what the device can.
            most = max(int(device.max_batch_tokens / unit), 1)
            unit = device.max_batch_tokens / most
            rate = calls.tokens_per_s / unit
            states = _states(device, rate, unit, most)
            if states <= _MAX_STATES or most == 1:
                break
            unit *= max(states / _MAX_STATES, 1.1)
        n = np.arange(states)
        read_s = np.clip(n, 1, most) * unit / device.tokens_per_s
        pass_s = np.asarray(device.start_s + read_s, np.float64)
        # Row: what waits at the end of one pass; column: at the end of the next.
        mean = rate * pass_s[:, None]
        arrived = n[None, :] - np.maximum(n[:, None] - most, 0)
        table = np.array([math.lgamma(k + 1) for k in range(states)])
        k = np.maximum(arrived, 0)
        moves = np.where(arrived >= 0, np.exp(k * np.log(mean) - mean - table[k]), 0.0)
        moves[:, -1] += 1 - moves.sum(axis=1)  # what would be more stays in the last state
        system = moves.T - np.eye(states)
        system[-1] = 1.0
        right = np.zeros(states)
        right[-1] = 1.0
        balance = np.maximum(np.linalg.solve(system, right), 0.0).astype(np.float64)
        return _Chain(unit, most, rate, balance / balance.sum(), pass_s)


def _states(device: Device, rate_per_s: float, unit_tokens: float, most: int) -> int:
    """States that hold all but nothing of the probability."""
    load = rate_per_s * unit_tokens / device.tokens_per_s
    mean = rate_per_s * (device.start_s + unit_tokens / device.tokens_per_s) / (1 - min(load, 0.99))
    mean = min(mean, rate_per_s * device.full_pass_s)
    scatter = math.sqrt(mean / (1 - min(load, 0.99) ** 2))
    # Beyond a full pass what waits falls off exponentially, as a random walk with a drift down.
    room = most - rate_per_s * device.full_pass_s
    tail = 12 * rate_per_s * device.full_pass_s / (2 * room)
    wide = mean + _WIDTH * scatter + 12
    return int(wide if wide < most else max(wide, most + tail))


def relaxation_s(load: float, service_s: float) -> float:
    """How long a queue takes to come near its balance: s / (1 − √ρ)², of M/M/1 (Morse 1955,
    doi:10.1287/opre.3.3.255). Seconds at half load, and minutes of the same queue near full."""
    return service_s / (1 - math.sqrt(min(load, 0.999))) ** 2


def event_loop_waits_s(rate_per_s: float, service_s: float, u: Float64) -> Float64:
    """Seconds of waiting for one event loop: M/M/1, P(W > t) = ρ·e^(−(1−ρ)t/s).

    Exponential times stand for requests that differ, and for what else the loop does in between.

    u: float64 [n], levels from 0 to 1.

    Raises:
        ValueError: it is full.
    """
    load = rate_per_s * service_s
    if load >= 1:
        raise ValueError(f"{rate_per_s:,.0f} requests/s of {service_s * 1e3:.2f} ms fill a core")
    waits = np.zeros_like(u)
    waiting = u > 1 - load
    waits[waiting] = -service_s / (1 - load) * np.log((1 - u[waiting]) / load)
    return waits
