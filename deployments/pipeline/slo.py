"""How many of the oldest texts to run together, so that few are answered too late."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deployments.pipeline.latency_model import CostCurve
from deployments.pipeline.queue import Slice

# Batch sizes that are weighed against each other.
_MAX_CHOICES = 32


def texts_within(
    curve: CostCurve, target_s: float, batch: list[Slice], now: float, slack: float
) -> int:
    """How many of the first texts of `batch` to run now, at least one; the others run next.

    Weighs every way of running the batch in one pass or in two by how many texts, from arrival to
    answer, take longer than `target_s`; of equals it takes the one that ends first, then the one
    with the largest first pass. Two passes may take longer than one by the share `slack`: a batch
    cut at any price would save its own oldest texts and make all that come later wait longer. So
    an overload, in which everybody is late, is worked off at the best rate that the curve knows.
    """
    lengths, waits_s = _lengths_and_waits(batch, now)
    n = len(lengths)
    firsts = np.unique(np.linspace(1, n, min(n, _MAX_CHOICES)).astype(np.int64))
    tokens = np.cumsum(lengths)
    longest_up_to = np.maximum.accumulate(lengths)
    longest_from = np.append(np.maximum.accumulate(lengths[::-1])[::-1], 0.0)
    first_s = curve.predict(tokens[firsts - 1], longest_up_to[firsts - 1])
    second_s = curve.predict(tokens[-1] - tokens[firsts - 1], longest_from[firsts])
    total_s = np.where(firsts < n, first_s + second_s, first_s)
    in_first = np.arange(n) < firsts[:, None]
    answered_s = waits_s + np.where(in_first, first_s[:, None], total_s[:, None])
    n_late = (answered_s > target_s).sum(axis=1).astype(np.float64)
    n_late[total_s > (1 + slack) * total_s[-1]] = np.inf
    return int(firsts[np.lexsort((-firsts, total_s, n_late))[0]])


def _lengths_and_waits(
    batch: list[Slice], now: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    lengths = [piece.call.texts.lengths[piece.start : piece.stop] for piece in batch]
    waits_s = [now - piece.call.arrived for piece in batch]
    return np.concatenate(lengths).astype(np.float64), np.repeat(waits_s, [*map(len, batch)])
