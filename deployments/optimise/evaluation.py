"""Every candidate on the same rows, with its speed, intervals and rivals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

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
    check_known,
    check_splits,
)
from deployments.optimise.running import CandidateFailed, Speed, run_baseline, run_model
from deployments.optimise.statistics import Difference, Int, differences, scores

_SECONDS_AN_HOUR = 3_600


@dataclass(frozen=True, slots=True)
class Job:
    """What to compare. train: what the baseline learns; None: the other folds of `data`.

    price_per_hour: of this machine, in any currency. with_baseline: False leaves it out.
    """

    path: str
    data: Labelled
    models: tuple[str, ...]
    engine: dict[str, Any]
    limits: Limits
    train: Labelled | None = None
    price_per_hour: float | None = None
    with_baseline: bool = True


@dataclass(frozen=True, slots=True)
class Evaluation:
    """candidates: in the order asked, the baseline last. failures: who gave nothing, and why."""

    path: str
    n_texts: int
    labels: list[str]
    candidates: list[Candidate]
    differences: list[Difference]
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
            "labels": self.labels,
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
    names = job.data.names
    known: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    gold = _numbers(job.data.labels, known)
    predicted: dict[str, Int] = {}
    candidates: list[Candidate] = []
    notes, failures = list(job.data.notes), {}

    def add(name: str, engine: str, labels: Sequence[str | None], speed: Speed) -> None:
        predicted[name] = _numbers(labels, known)
        cost = None
        if job.price_per_hour is not None:
            cost = job.price_per_hour * 1e6 / speed.texts_per_s / _SECONDS_AN_HOUR
        found = scores(gold, predicted[name], len(names))
        n_failed = sum(label is None for label in labels)
        candidates.append(Candidate(name, engine, found, speed, cost, n_failed))

    for model in job.models:
        on_step(model)
        try:
            ran = run_model(model, job.engine, job.data.texts)
        except CandidateFailed as exc:
            failures[model] = str(exc)
            continue
        check_known(job.data, model, ran.labels)
        add(model, ran.engine, ran.predicted, ran.speed)
    if not candidates:
        raise CandidateFailed(" ".join(f"{name}: {why}" for name, why in failures.items()))
    if job.with_baseline:
        on_step(baseline.NAME)
        try:
            labels, speed, how = _baseline(job)
        except (baseline.BaselineMissing, BadData, CandidateFailed) as exc:
            notes.append(f"No {baseline.NAME} beside them: {exc}")
        else:
            add(baseline.NAME, f"scikit-learn, {how}", labels, speed)
    on_step("statistics")
    gaps = differences(gold, predicted, len(names))
    return Evaluation(
        job.path,
        len(job.data),
        names,
        candidates,
        gaps,
        recommend(candidates, gaps, job.limits),
        tuple(notes),
        failures,
    )


def _baseline(job: Job) -> tuple[list[str], Speed, str]:
    """Its labels of all rows, its speed, and what it learnt from."""
    if job.train is not None:
        pipeline = baseline.fitted(job.train)
        labels = [str(label) for label in pipeline.predict(job.data.texts)]
        how = f"of {len(job.train):,} other texts"
    else:
        check_splits(job.data, baseline.FOLDS, job.path)
        labels = baseline.cross_predicted(job.data)
        pipeline, how = baseline.fitted(job.data), f"{baseline.FOLDS} folds of these rows"
    return labels, run_baseline(pipeline, job.data.texts), how


def _numbers(labels: Sequence[str | None], known: dict[str | None, int]) -> Int:
    return np.asarray([known.get(label, len(known)) for label in labels], np.int64)


def _plain(one: Candidate) -> dict[str, Any]:
    counts = one.scores.confusion.tolist()
    return asdict(replace(one, scores=replace(one.scores, confusion=counts)))
