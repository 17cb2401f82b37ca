"""Every candidate on the same rows, with its speed, intervals and rivals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deployments.optimise import baseline
from deployments.optimise.choice import (
    Candidate,
    Limits,
    Recommendation,
    pareto_front,
    recommend,
)
from deployments.optimise.labelled import (
    BadData,
    Labelled,
)
from deployments.optimise.problems import AnyDifference, LabelSets, Numbers, OneLabel
from deployments.optimise.running import CandidateFailed, Speed, run_baseline, run_model
from deployments.optimise.statistics import Scores

_SECONDS_AN_HOUR = 3_600


@dataclass(frozen=True, slots=True)
class Job:
    """What to compare. train: what the baseline learns; None: the other folds of `data`.

    price_per_hour: of this machine, in any currency. with_baseline: False leaves it out.
    separator: stands between the labels of a row, of models that give several. numbers: rows have
    numbers, of regressions.
    """

    path: str
    data: Labelled
    models: tuple[str, ...]
    engine: dict[str, Any]
    limits: Limits
    train: Labelled | None = None
    price_per_hour: float | None = None
    with_baseline: bool = True
    separator: str | None = None
    numbers: bool = False

    @property
    def problem(self) -> OneLabel:
        if self.numbers:
            return Numbers(self.data)
        return OneLabel(self.data) if not self.separator else LabelSets(self.data, self.separator)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """candidates: in the order asked, the baseline last. failures: who gave nothing, and why."""

    path: str
    n_texts: int
    problem: OneLabel
    candidates: list[Candidate]
    differences: Sequence[AnyDifference]
    recommendation: Recommendation
    notes: tuple[str, ...]
    failures: dict[str, str]

    @property
    def front(self) -> list[Candidate]:
        return pareto_front(self.candidates)

    def to_json(self) -> dict[str, Any]:
        """All figures, JSON-ready."""
        chosen = self.recommendation.chosen
        return {
            "data": self.path,
            "texts": self.n_texts,
            "problem_type": self.problem.type,
            "labels": self.problem.names,
            "models": [_plain(one) for one in self.candidates],
            "differences": [asdict(one) for one in self.differences],
            "front": [one.name for one in self.front],
            "recommended": chosen.name if chosen else None,
            "why": list(self.recommendation.why),
            "notes": list(self.notes),
            "failures": self.failures,
        }


def evaluate(job: Job, on_step: Callable[[str], None] = lambda _: None) -> Evaluation:
    """on_step: told what begins, in a few words.

    Raises:
        BadData: a model lacks labels that the rows have.
        CandidateFailed: no model gave anything to compare.
    """
    problem = job.problem
    gold = problem.gold(job.data)
    predicted: dict[str, Any] = {}
    candidates: list[Candidate] = []
    notes, failures = list(job.data.notes), {}

    def add(name: str, engine: str, answers: Sequence[Any], speed: Speed) -> None:
        predicted[name] = problem.array(answers)
        cost = None
        if job.price_per_hour is not None:
            cost = job.price_per_hour * 1e6 / speed.texts_per_s / _SECONDS_AN_HOUR
        found = problem.scores(gold, predicted[name])
        n_failed = sum(one is None for one in answers)
        candidates.append(Candidate(name, engine, found, speed, cost, n_failed))

    for model in job.models:
        on_step(model)
        try:
            ran = run_model(model, job.engine, job.data.texts, problem.type)
        except CandidateFailed as exc:
            failures[model] = str(exc)
            continue
        problem.check(job.data, model, ran.labels)
        add(model, ran.engine, ran.predicted, ran.speed)
    if not candidates:
        raise CandidateFailed(" ".join(f"{name}: {why}" for name, why in failures.items()))
    if job.with_baseline:
        on_step(baseline.NAME)
        try:
            answers, speed, how = _baseline(job, problem)
        except (baseline.BaselineMissing, BadData, CandidateFailed) as exc:
            notes.append(f"No {baseline.NAME} beside them: {exc}")
        else:
            add(baseline.NAME, f"scikit-learn, {how}", answers, speed)
    on_step("statistics")
    gaps = problem.differences(gold, predicted)
    return Evaluation(
        job.path,
        len(job.data),
        problem,
        candidates,
        gaps,
        recommend(candidates, gaps, job.limits, problem.ranked_by),
        tuple(notes),
        failures,
    )


def _baseline(job: Job, problem: OneLabel) -> tuple[list[Any], Speed, str]:
    """Its answers to all rows, its speed, and what it learnt from."""
    texts = job.data.texts
    if job.train is not None:
        of_train = problem.targets(job.train)
        pipeline = baseline.fitted(job.train.texts, of_train, problem.type)
        found, how = pipeline.predict(texts), f"of {len(job.train):,} other texts"
    else:
        problem.check_folds(job.data, baseline.FOLDS, job.path)
        targets = problem.targets(job.data)
        found = baseline.cross_predicted(texts, targets, problem.type)
        pipeline = baseline.fitted(texts, targets, problem.type)
        how = f"{baseline.FOLDS} folds of these rows"
    return problem.answers(found), run_baseline(pipeline, texts), how


def _plain(one: Candidate) -> dict[str, Any]:
    plain = asdict(one)
    if isinstance(one.scores, Scores):
        plain["scores"]["confusion"] = one.scores.confusion.tolist()
    return plain
