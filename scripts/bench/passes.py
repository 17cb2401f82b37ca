"""How long a forward pass takes: fitted to those that were timed, or told to a stand-in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import numpy as np
from scipy.optimize import nnls

TOKENS_PER_S = 20_000.0
"""Of a stand-in that was told nothing."""
_VARIABLE = "BENCH_PASS_TIME"


@dataclass(frozen=True, slots=True)
class PassTime:
    """Seconds of a pass = start_s + token_s · tokens + square_s · Σ tokens of each text²."""

    start_s: float
    token_s: float
    square_s: float

    def of_each(self, lengths: np.ndarray) -> np.ndarray:
        """What each text adds to a pass, the start apart: float64 [n]."""
        long = lengths.astype(np.float64)
        return self.token_s * long + self.square_s * long**2

    def of_pass(self, lengths: np.ndarray) -> float:
        return self.start_s + float(self.of_each(lengths).sum())


def fitted(passes: Sequence[Sequence[float]]) -> PassTime:
    """Out of measured passes: [tokens, Σ tokens², seconds] of each.

    Relative errors count alike, short passes and long ones. No term is negative (nnls).
    """
    tokens, squares, seconds = np.asarray(passes, np.float64).T
    columns = np.stack([np.ones_like(tokens), tokens, squares], axis=1)
    found, _ = nnls(columns / seconds[:, None], np.ones_like(seconds))
    return PassTime(*found.tolist())


def exact(cost: PassTime) -> list[list[float]]:
    """Passes that took just that long, as `fitted` wants them."""
    found = []
    for lengths in ([8], [512], [64] * 16, [16] * 16):
        long = np.asarray(lengths)
        found.append([float(long.sum()), float((long**2).sum()), cost.of_pass(long)])
    return found


@contextmanager
def waiting(cost: PassTime) -> Iterator[None]:
    """Stand-ins that start in here wait so long: all processes of a service inherit the
    environment."""
    os.environ[_VARIABLE] = json.dumps(astuple(cost))
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def told() -> PassTime:
    """What a stand-in in this process has to wait."""
    found = os.environ.get(_VARIABLE)
    return PassTime(*json.loads(found)) if found else PassTime(0.0, 1 / TOKENS_PER_S, 0.0)
