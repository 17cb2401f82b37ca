"""Character n-grams and a linear model, the rival that needs no BERT.

Where it is as good as a BERT within the intervals, it answers a thousand times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deployments import installing
from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION, SINGLE_LABEL

FOLDS = 5
NAME = "character n-grams"
_NGRAMS = (1, 4)
_SEED = 0


class BaselineMissing(Exception):
    """scikit-learn is not installed. The message says how to install it."""


def unfitted(problem_type: str = SINGLE_LABEL) -> Any:
    """scikit-learn's pipeline: TF-IDF of 1 to 4 characters, then a linear model.

    That is a support vector machine; one for each label where a text may have several; and ridge
    regression of numbers.

    Raises:
        BaselineMissing: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC
    except ImportError:
        raise BaselineMissing(f"scikit-learn is not installed: {installing('train')}.") from None
    words = TfidfVectorizer(analyzer="char", ngram_range=_NGRAMS, min_df=2, sublinear_tf=True)
    # Balanced, as macro-F1 counts a rare label as much as a frequent one.
    linear: Any = LinearSVC(class_weight="balanced", random_state=_SEED)
    if problem_type == MULTI_LABEL:
        linear = OneVsRestClassifier(linear)
    elif problem_type == REGRESSION:
        linear = Ridge()
    return make_pipeline(words, linear)


def fitted(texts: Sequence[str], targets: Any, problem_type: str = SINGLE_LABEL) -> Any:
    """The pipeline, which has seen all of them. targets: as `OneLabel.targets` gives them."""
    return unfitted(problem_type).fit(texts, targets)


def cross_predicted(texts: Sequence[str], targets: Any, problem_type: str = SINGLE_LABEL) -> Any:
    """A prediction for each text, by a pipeline that has seen the other four fifths only."""
    pipeline = unfitted(problem_type)  # first: it tells what is missing
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict

    kind = StratifiedKFold if problem_type == SINGLE_LABEL else KFold
    folds = kind(FOLDS, shuffle=True, random_state=_SEED)
    return cross_val_predict(pipeline, texts, targets, cv=folds)
