"""What is measured of a model, by its problem: one label a text, sets of labels, or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from deployments.optimise.labelled import Labelled, check_known, check_splits, sets_of
from deployments.optimise.number_statistics import (
    NumberDifference,
    NumberScores,
    number_differences,
    number_scores,
)
from deployments.optimise.set_statistics import SetScores, set_differences, set_scores
from deployments.optimise.statistics import Difference, Floats, Int, Scores, differences, scores
from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION, SINGLE_LABEL

AnyScores = Scores | SetScores | NumberScores
AnyDifference = Difference | NumberDifference


class OneLabel:
    """Each text has one label.

    type: `problem_type` of the models. figures: title → attribute of the scores; models are ranked
    by the first. gaps: the same, of differences. counted: what a difference counts of either model,
    and the test of it. names: the labels that the rows have, sorted.
    """

    type: ClassVar[str] = SINGLE_LABEL
    figures: ClassVar[Mapping[str, str]] = {"macro-F1": "macro_f1", "accuracy": "accuracy"}
    gaps: ClassVar[Mapping[str, str]] = {"macro-F1": "macro_f1", "accuracy": "accuracy"}
    counted: ClassVar[tuple[str, str]] = ("right", "McNemar's p")

    def __init__(self, data: Labelled) -> None:
        self.names = data.names
        self._places = {label: i for i, label in enumerate(self.names)}

    @property
    def ranked_by(self) -> str:
        """Title of the first figure."""
        return next(iter(self.figures))

    def check(self, data: Labelled, model: str, labels: Sequence[str]) -> None:
        """Raises BadData where rows have labels that the model can't give."""
        check_known(data, model, labels)

    def check_folds(self, data: Labelled, n_parts: int, path: str) -> None:
        """Raises BadData where a label has no row for each part."""
        check_splits(data, n_parts, path)

    def gold(self, data: Labelled) -> Any:
        """What the rows are, as `scores` takes it."""
        return self.array(data.labels)

    def targets(self, data: Labelled) -> Any:
        """The same, as scikit-learn learns it."""
        return data.labels

    def answers(self, predicted: Any) -> list[Any]:
        """What scikit-learn says, as models answer."""
        return [str(label) for label in predicted]

    def array(self, answers: Sequence[Any]) -> Any:
        """Answers as `scores` takes them. None, of a text without an answer, is no label at all."""
        return np.asarray([self._places.get(one, len(self.names)) for one in answers], np.int64)

    def scores(self, gold: Any, predicted: Any) -> AnyScores:
        return scores(gold, predicted, len(self.names))

    def differences(self, gold: Any, predicted: dict[str, Any]) -> Sequence[AnyDifference]:
        return differences(gold, predicted, len(self.names))


class LabelSets(OneLabel):
    """Each text has several labels, or none. A text without an answer got none."""

    type: ClassVar[str] = MULTI_LABEL
    figures: ClassVar[Mapping[str, str]] = {
        "macro-F1": "macro_f1",
        "micro-F1": "micro_f1",
        "all labels right": "accuracy",
    }
    gaps: ClassVar[Mapping[str, str]] = {"macro-F1": "macro_f1", "all labels right": "accuracy"}

    def __init__(self, data: Labelled, separator: str) -> None:
        self._separator = separator
        self.names = sorted(set().union(*sets_of(data, separator)))
        self._places = {label: i for i, label in enumerate(self.names)}

    def check(self, data: Labelled, model: str, labels: Sequence[str]) -> None:
        check_known(data, model, labels, self._separator)

    def check_folds(self, data: Labelled, n_parts: int, path: str) -> None:
        pass  # folds are drawn without regard to labels

    def gold(self, data: Labelled) -> Int:
        return self.array(sets_of(data, self._separator))

    def targets(self, data: Labelled) -> Int:
        return self.gold(data)[:, :-1]

    def answers(self, predicted: Any) -> list[Any]:
        return [[self.names[i] for i in np.flatnonzero(row)] for row in predicted]

    def array(self, answers: Sequence[Any]) -> Int:
        found = np.zeros((len(answers), len(self.names) + 1), np.int64)
        for row, labels in zip(found, answers, strict=True):
            row[[self._places.get(label, len(self.names)) for label in labels or ()]] = 1
        return found

    def scores(self, gold: Int, predicted: Int) -> SetScores:
        return set_scores(gold, predicted)

    def differences(self, gold: Int, predicted: dict[str, Int]) -> Sequence[Difference]:
        return set_differences(gold, predicted)


class Numbers(OneLabel):
    """Each text has a number. A text without an answer got the mean of all rows."""

    type: ClassVar[str] = REGRESSION
    figures: ClassVar[Mapping[str, str]] = {
        "Pearson's r": "pearson",
        "Spearman's ρ": "spearman",
        "R²": "r2",
        "mean absolute error": "mae",
    }
    gaps: ClassVar[Mapping[str, str]] = {"Pearson's r": "pearson", "mean absolute error": "mae"}
    counted: ClassVar[tuple[str, str]] = ("nearer", "sign test's p")

    def __init__(self, data: Labelled) -> None:
        self.names = []
        self._mean = float(np.mean([float(one) for one in data.labels]))

    def check(self, data: Labelled, model: str, labels: Sequence[str]) -> None:
        pass

    def check_folds(self, data: Labelled, n_parts: int, path: str) -> None:
        pass

    def targets(self, data: Labelled) -> Floats:
        return self.array(data.labels)

    def answers(self, predicted: Any) -> list[Any]:
        return [float(one) for one in predicted]

    def array(self, answers: Sequence[Any]) -> Floats:
        return np.asarray([self._mean if one is None else float(one) for one in answers])

    def scores(self, gold: Floats, predicted: Floats) -> NumberScores:
        return number_scores(gold, predicted)

    def differences(self, gold: Floats, predicted: dict[str, Floats]) -> Sequence[AnyDifference]:
        return number_differences(gold, predicted)
