"""A teacher for noisy labels: linear models that grade only texts they have not seen."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC

from .data import Split

FOLDS = 10
SPAN_CHARACTERS = (6, 49)


def out_of_fold_targets(
    train: Split, views: Sequence[Sequence[str]], seed: int
) -> list[np.ndarray]:
    """Return P(label) [n, 2] of each training text, then of each view's n texts.

    Text i of a view derives from training text i, so it is graded by the same models, which were
    fitted on the other folds.
    """
    labels = np.array(train.labels)
    graded = [np.array(texts, dtype=object) for texts in (train.texts, *views)]
    scores = np.zeros((len(graded), len(train), 3))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fitted, held_out in folds.split(graded[0], labels):
        unseen = np.concatenate([texts[held_out] for texts in graded])
        marks = _scores(graded[0][fitted], labels[fitted], unseen)
        scores[:, held_out] = marks.reshape(len(graded), len(held_out), 3)
    # Three weights from 14,000 texts cannot overfit, so the mixer needs no folds of its own.
    mixer = LogisticRegression().fit(scores[0], labels)
    return [mixer.predict_proba(view) for view in scores]


def random_spans(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Cut one random stretch of each text."""
    spans = []
    for text in texts:
        length = min(int(rng.integers(*SPAN_CHARACTERS)), len(text))
        start = int(rng.integers(len(text) - length + 1))
        spans.append(text[start : start + length])
    return spans


def _scores(texts: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    tfidf = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, sublinear_tf=True)
    known, new = tfidf.fit_transform(texts), tfidf.transform(unseen)
    svm = LinearSVC(C=0.5, random_state=0).fit(known, labels)
    ratios = sparse.diags(_log_ratios(known, labels))
    weighted_svm = LinearSVC(C=1.0, random_state=0).fit((known @ ratios).tocsr(), labels)
    bayes = MultinomialNB(alpha=0.1).fit(known, labels)
    odds = bayes.predict_log_proba(new)
    columns = (
        svm.decision_function(new),
        weighted_svm.decision_function((new @ ratios).tocsr()),
        odds[:, 1] - odds[:, 0],
    )
    return np.stack(columns, axis=1)


def _log_ratios(features: sparse.csr_matrix, labels: np.ndarray) -> np.ndarray:
    present = features > 0
    positive, negative = (
        np.asarray(present[labels == y].sum(axis=0)).ravel() + 1.0 for y in (1, 0)
    )
    ratios: np.ndarray = np.log(positive / positive.sum()) - np.log(negative / negative.sum())
    return ratios
