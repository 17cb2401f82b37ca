"""What a forward pass costs on this machine, learned from those that ran.

seconds ≈ a + b·tokens + c·tokens·longest: starting it, the layers' products, and attention or
padding, which grow with the longest text of the batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from deployments.pipeline.types import Float64

# The shape of the curve belongs to the model and is averaged over some hundred passes; the speed
# belongs to the moment (other processes, heat) and follows within some ten.
_KEEP = 1 - 1 / 300
SPEED_MEMORY = 10
# Passes after which speed is told from shape.
WARM_UP = 20
# A pass that took much longer than expected is believed up to this factor: a pause of the garbage
# collector must not count for ten passes, and a slower machine is believed after a few. So is a
# shorter one, once it is known what to expect: the first pass says next to nothing of larger ones.
MAX_SURPRISE = 2.0
# Coefficients of which nothing is known yet share what was measured; the weight of that guess, in
# passes.
_RIDGE = 1e-3
# Later passes change the shape little each.
_SOLVE_EVERY = 10
# Batch sizes that are weighed against each other.
_MAX_CHOICES = 32
# Mean absolute deviations within which 98 of 100 passes stay, where they scatter normally.
_DEVIATIONS = 2.5


class Coefficients(NamedTuple):
    """a in seconds, b per token, c per token and token of the longest text."""

    start_s: float
    token_s: float
    attention_s: float

    def pass_s(self, tokens: float, longest: float) -> float:
        return self.start_s + tokens * (self.token_s + longest * self.attention_s)


class CostCurve:
    """Learns from every forward pass, in some microseconds.

    most_tokens: of the largest pass observed.
    """

    def __init__(self) -> None:
        self.n_observed = 0
        self.most_tokens = 0
        # Of the least-squares problem: the upper half of its matrix by rows, and its right side.
        self._sums = [0.0] * 9
        self._shape = Coefficients(0.0, 0.0, 0.0)
        self._log_speed = 0.0
        self._spread = 0.0

    def observe(self, tokens: int, longest: int, elapsed_s: float) -> None:
        """A pass over `tokens` tokens, of which the longest text has `longest`, took so long."""
        elapsed_s = max(elapsed_s, 1e-6)
        if self.n_observed:
            limit = math.log(MAX_SURPRISE)
            expected_s = self._shape.pass_s(tokens, longest)
            surprise = math.log(elapsed_s / expected_s) - self._log_speed
            least = -limit if self.n_observed >= WARM_UP else -math.inf
            surprise = min(max(surprise, least), limit)
            elapsed_s = expected_s * math.exp(surprise)
            if self.n_observed >= WARM_UP:
                self._log_speed += surprise / SPEED_MEMORY
                self._spread += (abs(surprise) - self._spread) / (2 * SPEED_MEMORY)
        # Divided by what they took, passes count alike, short or long.
        x, y, z = 1.0 / elapsed_s, tokens / elapsed_s, tokens * longest / elapsed_s
        new = (x * x, x * y, x * z, y * y, y * z, z * z, x, y, z)
        self._sums = [_KEEP * old + term for old, term in zip(self._sums, new, strict=True)]
        self.n_observed += 1
        self.most_tokens = max(self.most_tokens, tokens)
        if self.n_observed <= WARM_UP or self.n_observed % _SOLVE_EVERY == 0:
            self._shape = _non_negative(self._sums)

    def predict(self, tokens: Float64, longest: Float64) -> Float64:
        """Seconds that all but some in a hundred passes stay under; zero while nothing is known.

        tokens, longest: float64 [n], one value per pass in question.
        """
        a, b, c = self.coefficients()
        margin = math.exp(_DEVIATIONS * self._spread)
        return margin * (a + tokens * (b + c * longest))

    def coefficients(self) -> Coefficients:
        """The curve as the machine is now, for logs and metrics."""
        speed = math.exp(self._log_speed)
        return Coefficients(*(value * speed for value in self._shape))


def _non_negative(sums: list[float]) -> Coefficients:
    """The least-squares solution without its negative terms: a pass has no negative cost."""
    xx, xy, xz, yy, yz, zz = sums[:6]
    gram = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    moment = np.array(sums[6:])
    scale = np.sqrt(np.diag(gram))
    active = scale > 0
    solution = np.zeros(3)
    while True:
        s = scale[active]
        scaled = gram[np.ix_(active, active)] / np.outer(s, s) + _RIDGE * np.eye(len(s))
        solution[active] = np.linalg.solve(scaled, moment[active] / s) / s
        if (solution >= 0).all():
            return Coefficients(*solution.tolist())
        active &= solution > 0
        solution[~active] = 0.0


def texts_within(
    curve: CostCurve, target_s: float, lengths: Float64, waits_s: Float64, slack: float
) -> int:
    """How many of the first texts of `batch` to run now, at least one; the others run next.

    Weighs every way of running the batch in one pass or in two by how many texts, from arrival to
    answer, take longer than `target_s`; of equals it takes the one that ends first, then the one
    with the largest first pass. Two passes may take longer than one by the share `slack`: a batch
    cut at any price would save its own oldest texts and make all that come later wait longer. So
    an overload, in which everybody is late, is worked off at the best rate that the curve knows.
    """
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
