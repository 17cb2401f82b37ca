"""What the model has to beat: character n-grams with a linear SVM, and SnowNLP itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from .data import Split
from .evaluate import macro_f1

NGRAM_RANGES = ((1, 2), (1, 3), (1, 4), (2, 4))
PENALTIES = (0.1, 0.2, 0.5, 1.0, 2.0)


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
