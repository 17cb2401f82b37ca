"""Which models are worth having, and which of them keeps within stated limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.optimise.problems import AnyDifference, AnyScores
from deployments.optimise.running import Speed


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that was measured. cost: of a million texts, in the currency of the stated price;
    None where no price was stated. n_failed: texts without an answer, which count as wrong."""

    name: str
    engine: str
    scores: AnyScores
    speed: Speed
    cost: float | None = None
    n_failed: int = 0

    @property
    def main(self) -> float:
        """What models are ranked by: macro-F1, or Pearson's r of a regression."""
        return self.scores.main.value


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model must keep within; None is no limit. min_f1: of macro-F1, 0 to 1."""

    max_p99_ms: float | None = None
    max_memory_mb: float | None = None
    min_f1: float | None = None

    def broken_by(self, one: Candidate) -> list[str]:
        """Each limit that it breaks, with both numbers."""
        found = []
        if self.max_p99_ms is not None and one.speed.p99_ms > self.max_p99_ms:
            found.append(f"p99 is {one.speed.p99_ms:,.1f} ms, above {self.max_p99_ms:g}")
        if self.max_memory_mb is not None and one.speed.memory_mb > self.max_memory_mb:
            found.append(f"memory is {one.speed.memory_mb:,.0f} MB, above {self.max_memory_mb:g}")
        if self.min_f1 is not None and one.main < self.min_f1:
            found.append(f"macro-F1 is {one.main:.3f}, below {self.min_f1:g}")
        return found


@dataclass(frozen=True, slots=True)
class Recommendation:
    """chosen: None where nothing keeps within the limits. why: sentences."""

    chosen: Candidate | None
    why: tuple[str, ...]


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one beats in both `main` and texts a second, the best first."""
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda c: (-c.main, -c.speed.texts_per_s)):
        if not front or one.speed.texts_per_s > front[-1].speed.texts_per_s:
            front.append(one)
    return front


def recommend(
    candidates: Sequence[Candidate],
    differences: Sequence[AnyDifference],
    limits: Limits,
    figure: str = "macro-F1",
) -> Recommendation:
    """The best within the limits, or the fastest of those that are not surely worse.

    figure: the name of what models are ranked by. Surely worse: the interval of the paired
    difference in it lies below zero.
    """
    why = []
    able = []
    for one in candidates:
        if broken := limits.broken_by(one):
            why.append(f"{one.name} is out: {'; '.join(broken)}.")
        else:
            able.append(one)
    if not able:
        return Recommendation(None, (*why, "No model keeps within the limits. Loosen one."))
    best = max(able, key=lambda one: (one.main, one.speed.texts_per_s))
    equals = [one for one in able if one is best or not _surely_better(best, one, differences)]
    chosen = max(equals, key=lambda one: one.speed.texts_per_s)
    why.append(
        f"{best.name} has the best {figure}{' within the limits' if why else ''}, "
        f"{best.scores.main}."
    )
    if chosen is not best:
        gap = _gap(best, chosen, differences)
        why.append(
            f"These rows can't tell {chosen.name} from it: the difference in {figure} is {gap}, "
            f"and its interval holds zero. It answers "
            f"{chosen.speed.texts_per_s / best.speed.texts_per_s:.1f} times as many texts a second."
        )
    elif len(able) > 1:
        worse = [one.name for one in able if one not in equals]
        if worse:
            why.append(f"Surely worse on the same rows: {', '.join(worse)}.")
        if len(equals) > 1:
            why.append("Of those that are not surely worse it is the fastest.")
    return Recommendation(chosen, tuple(why))


def _surely_better(best: Candidate, other: Candidate, differences: Sequence[AnyDifference]) -> bool:
    return not _between(best, other, differences)[0] <= 0


def _gap(best: Candidate, other: Candidate, differences: Sequence[AnyDifference]) -> str:
    low, value, high = _between(best, other, differences)
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _between(
    best: Candidate, other: Candidate, differences: Sequence[AnyDifference]
) -> tuple[float, float, float]:
    """Low, value and high of best less other."""
    for one in differences:
        gap = one.main
        if (one.first, one.second) == (best.name, other.name):
            return gap.low, gap.value, gap.high
        if (one.first, one.second) == (other.name, best.name):
            return -gap.high, -gap.value, -gap.low
    raise KeyError((best.name, other.name))
