"""The threshold of a cascade: fitted on one half of held-out rows, checked on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deployments.model.deployed import as_deployed
from deployments.model.source import find_model, model_info
from deployments.optimise.calibration import CONFIDENCE, Bools, Floats, Ints, halves
from deployments.optimise.labelled import BadData, Labelled, check_known, check_splits
from deployments.optimise.running import CandidateFailed, Speed, apart, loaded, timed
from deployments.optimise.statistics import accuracy, confusion_of, precision_recall_f1
from deployments.settings import CascadeSettings, ModelSettings, Settings

# Fixed before any row is seen, the safest first.
THRESHOLDS = (
    *(1.0, 0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.985, 0.98, 0.97, 0.96, 0.95, 0.94),
    *(0.92, 0.9, 0.875, 0.85, 0.825, 0.8, 0.775, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5),
    *(0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1),
)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said of each text. scores: of the best label, calibrated, as the service has
    them. labels: all that it can give."""

    predicted: list[str]
    scores: Floats
    labels: tuple[str, ...]
    speed: Speed


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one way to answer, on the rows that no number was fitted to."""

    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Cascaded:
    """What a threshold gives. All but `threshold` and `n_fitted` is of the other half's rows.

    passed_on: share of texts that go to the large model. loss: of accuracy, against the large model
    alone; it may be a gain. at_most: it stays below it with `CONFIDENCE`, on rows of this kind.
    texts_per_s: of both models one after the other on this machine.
    """

    threshold: float
    n_fitted: int
    n_checked: int
    passed_on: float
    loss: float
    at_most: float
    small: Quality
    large: Quality
    cascade: Quality
    texts_per_s: float
    small_texts_per_s: float
    large_texts_per_s: float


def refuse_before_asking(data: Labelled, small: str, large: str) -> None:
    """What can be known before any model has run.

    Raises:
        ModelNotFound: one is not there, can't be served, or has other labels than the other.
        BadData: as `fit`, for what rows and labels show.
    """
    beside = CascadeSettings(model=ModelSettings(id=small))
    settings = Settings(model=ModelSettings(id=large), cascade=beside)
    for model in (small, large):
        find_model(model)
    as_deployed(settings)
    check_known(data, large, model_info(settings.model).labels)
    check_splits(data, 2, "the table")


def answers_of(model: str, engine: dict[str, Any], texts: Sequence[str]) -> Answers:
    """In a process of its own. Raises CandidateFailed."""
    found: Answers = apart(_answers_of, model, engine, list(texts))
    return found


def fit(
    data: Labelled, small: Answers, large: Answers, names: tuple[str, str], max_loss: float
) -> Cascaded:
    """The lowest threshold that loses at most `max_loss` of accuracy on half of the rows, it and
    all that are higher; and what it does on the other half. names: of both models, for messages.

    Raises:
        BadData: the models have other labels than each other or than the rows, or there are too few
            rows; or no threshold passes fewer texts on than all of them.
    """
    if set(small.labels) != set(large.labels):
        raise BadData(
            f"the labels differ: {names[0]} has {', '.join(small.labels)}; {names[1]} has "
            f"{', '.join(large.labels)}. A cascade needs the same names."
        )
    check_known(data, names[1], large.labels)
    check_splits(data, 2, "the table")
    place = {label: i for i, label in enumerate(sorted(large.labels))}
    gold, of_small, of_large = (
        np.asarray([place[label] for label in labels])
        for labels in (data.labels, small.predicted, large.predicted)
    )
    fitted, checked = halves(len(data), gold)
    # As the service compares: float32.
    scores = small.scores.astype(np.float32)
    better = (of_large == gold).astype(int) - (of_small == gold)
    threshold = None
    for one in THRESHOLDS:
        stands = scores[fitted] >= np.float32(one)
        if float((better[fitted] * stands).mean()) > max_loss:
            break
        if stands.any():
            threshold = one
    if threshold is None:
        raise BadData(
            f"on {len(fitted):,} rows no threshold loses at most {max_loss:g} of accuracy and "
            f"spares the large model any text. Train {names[0]} further, or allow more."
        )
    stands = scores[checked] >= np.float32(threshold)
    both = np.where(stands, of_small[checked], of_large[checked])
    alone, best, together = (
        _quality(gold[checked], one, len(place))
        for one in (of_small[checked], of_large[checked], both)
    )
    passed_on = float(1 - stands.mean())
    cost_s = 1 / small.speed.texts_per_s + passed_on / large.speed.texts_per_s
    return Cascaded(
        threshold,
        len(fitted),
        len(checked),
        passed_on,
        float((better[checked] * stands).mean()),
        _at_most(better[checked], stands),
        alone,
        best,
        together,
        1 / cost_s,
        small.speed.texts_per_s,
        large.speed.texts_per_s,
    )


def _at_most(better: Ints, stands: Bools) -> float:
    """An upper bound of the loss: Clopper and Pearson's, from above for texts that only the large
    model has right and from below for those that only the small one has, half of the risk each."""
    from scipy.stats import binomtest

    n = len(better)
    counts = Counter((better * stands).tolist())
    lost, gained = (
        binomtest(counts[sign], n).proportion_ci(CONFIDENCE, method="exact") for sign in (1, -1)
    )
    return float(lost.high - gained.low)


def _quality(gold: Ints, predicted: Ints, n_labels: int) -> Quality:
    counts = confusion_of(gold, predicted, n_labels)
    f1 = precision_recall_f1(counts)[2]
    return Quality(float(accuracy(counts)), float(f1.mean()))


def _answers_of(model: str, engine: dict[str, Any], texts: list[str]) -> Answers:
    with loaded(model, engine) as classifier:
        answers, speed = timed(classifier.classify, texts)
        if failed := sum("error" in one for one in answers):
            raise CandidateFailed(f"it has no answer for {failed:,} of {len(texts):,} texts.")
        return Answers(
            [one["label"] for one in answers],
            np.asarray([one["score"] for one in answers]),
            classifier.loaded.parts.info.labels,
            speed,
        )
