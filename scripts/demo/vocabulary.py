"""A WordPiece vocabulary of our own, counted on the training split only."""

import re
from collections import Counter
from collections.abc import Iterable

from transformers import BertTokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_LENGTH = 512
MIN_CHARACTER_COUNT = 2
MIN_WORD_COUNT = 5

_WORD = re.compile(r"[a-z0-9]{2,}")
_ASCII = "abcdefghijklmnopqrstuvwxyz0123456789"


def build_vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Hold every character seen twice, frequent Latin words, and pieces to spell the rest.

    Counted here because the WordPiece trainer of `tokenizers` breaks ties differently from run
    to run, and the ids must not move.
    """
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        text = text.lower()
        characters.update(text)
        words.update(_WORD.findall(text))
    tokens = list(SPECIAL_TOKENS)
    tokens += [c for c in _frequent(characters, MIN_CHARACTER_COUNT) if not c.isspace()]
    tokens += [c for c in _ASCII if characters[c] < MIN_CHARACTER_COUNT]
    tokens += _frequent(words, MIN_WORD_COUNT)
    tokens += [f"##{c}" for c in _ASCII]
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer(texts: Iterable[str]) -> BertTokenizer:
    """Return a fast (Rust) lower-casing BERT tokenizer over the vocabulary of these texts."""
    vocabulary = build_vocabulary(texts)
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=MAX_LENGTH)


def _frequent(counter: Counter[str], minimum: int) -> list[str]:
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [token for token, count in ranked if count >= minimum]
