"""Beginnings of long texts that give the same first tokens as all of the text.

A model reads some hundred tokens; a text may have 100,000 characters, of which it takes the
tokenizer 80 ms to make tokens that are cut off again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Most languages have fewer characters in a token than that.
_CHARS_PER_TOKEN = 6
_GROWTH = 4
# Not all of Unicode's spaces: BERT's normaliser drops some of them as controls before it looks.
_SPACES = " \t\n\r\u3000"
_IDEOGRAPHS = "\u4e00-\u9fff"


class Beginnings:
    """Where BERT's tokenizer may be given less than all of a text.

    It never looks across a space, nor, with `handle_chinese_chars`, across the left edge of an
    ideograph: it cleans, decomposes and lowers character by character, neither of the two ever
    combines with what is before it, words end there, and words become tokens each on its own. So
    the tokens of what is before are the first of the whole text's. Of other tokenizers that isn't
    known, and they are given all.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self._edge = _edge_of(tokenizer)
        self._shortest = _CHARS_PER_TOKEN * max_length
        self.min_chars = 2 * self._shortest
        """Of texts that have beginnings; shorter ones are given as a whole."""

    def of(self, text: str) -> Iterator[str]:
        """Beginnings, each longer than the last, and then all of the text.

        Together they are less than twice as long as the text.
        """
        if self._edge is not None and len(text) >= self.min_chars and _is_unicode(text):
            size = self._shortest
            while 2 * size <= len(text):
                edge = self._edge.search(text, size, size + size // 2)
                if edge is not None:
                    yield text[: edge.start()]
                size *= _GROWTH
        yield text


def _edge_of(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """What a text may be cut before; None where that isn't known."""
    from tokenizers import models, normalizers, pre_tokenizers

    normalizer = tokenizer.normalizer
    if not (
        isinstance(normalizer, normalizers.BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(tokenizer.model, models.WordPiece)
    ):
        return None
    edge = re.compile(f"[{_SPACES}{_IDEOGRAPHS if normalizer.handle_chinese_chars else ''}]")
    # Words that the tokenizer takes out of the text before all else: the cut may neither split one
    # nor make one.
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.single_word or edge.search(token.content):
            return None
    return edge


def _is_unicode(text: str) -> bool:
    """Whether the tokenizer takes all of it: a surrogate behind the cut must not go unnoticed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
