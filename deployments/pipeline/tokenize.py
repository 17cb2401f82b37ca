"""Text → token ids, by the model's own Rust tokenizer, many texts a call."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deployments.pipeline.errors import EmptyText, InvalidInput, ServiceError, TextTooLong
from deployments.pipeline.types import Encoded, Int32, Options, TextInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """What became of n inputs. The k-th text of `batch` is input number `index[k]`.

    redacted: placeholders in the k-th text of `batch`; None where nothing is redacted at all.
    """

    batch: Encoded
    index: list[int]
    truncated: list[bool]
    errors: dict[int, ServiceError]
    redacted: list[int] | None = None


TypeIds = Literal["none", "where_not_zero", "always"]
"""What of token types a model is given: to most, texts without are texts of type 0."""

# Pairs are cut this many tokens behind the model's limit: far enough that the cut changes no token
# before the limit.
_PAIR_MARGIN = 64
# What the tokenizer itself may be given of a half that can't be cut before: see `_pair`.
_MOST_UNCUT_TOKENS = 8_192


# What may be encoded on an event loop: three times the hop to a thread, which takes 60 to 80 µs.
INLINE_S = 200e-6
_S_PER_CHAR = 1e-6  # 1 to 2 µs

# Most languages have fewer characters in a token than that.
_CHARS_PER_TOKEN = 6
_GROWTH = 4
# Not all of Unicode's spaces: BERT's normaliser drops some of them as controls before it looks.
_SPACES = " \t\n\r\u3000"
_IDEOGRAPHS = "\u4e00-\u9fff"


class UncuttablePair(Exception):
    """A half is much too long, and no part of it has the same tokens."""


class TextEncoder:
    """Encodes batches of texts; a bad text gets its own error and harms no other.

    marks: how many tokens the tokenizer adds to a text. keeps_end: whether a text that is too long
    loses its beginning. untruncated: the tokenizer, cutting nothing. longest_whole: texts of fewer
    characters are encoded whole. inline_chars: so many may be encoded where others wait for it.

    Raises:
        ValueError: `max_length` leaves no room for a text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        type_ids: TypeIds = "where_not_zero",
    ) -> None:
        marks = tokenizer.num_special_tokens_to_add(is_pair=True)
        if max_length <= marks:
            raise ValueError(
                f"the model reads {max_length} tokens, of which {marks} are its tokenizer's own "
                f"marks. Set args.model.max_length to {marks + 1} or more."
            )
        self.max_length = max_length
        self._tokenizer = tokenizer
        self.marks = tokenizer.num_special_tokens_to_add(is_pair=False)
        kept = tokenizer.truncation or {}
        self.keeps_end = kept.get("direction") == "left"
        tokenizer.no_padding()
        # A second instance, as truncation is a state of the tokenizer and threads share it.
        self.untruncated = type(tokenizer).from_str(tokenizer.to_str())
        self.untruncated.no_truncation()
        self.untruncated.encode_special_tokens = tokenizer.encode_special_tokens
        tokenizer.enable_truncation(
            max_length,
            stride=0,
            strategy="longest_first",
            direction="left" if self.keeps_end else "right",
        )
        # Of a text whose end is kept the beginning is of no use.
        self._beginnings = None if self.keeps_end else Beginnings(tokenizer, max_length)
        self.longest_whole = self._beginnings.min_chars if self._beginnings else math.inf
        self.inline_chars = int(INLINE_S / _S_PER_CHAR)
        self._other_end: TextEncoder | None = None
        self._making = threading.Lock()
        self.type_ids = type_ids
        if type_ids == "where_not_zero" and any(tokenizer.encode("a").type_ids):
            self.type_ids = "always"

    def encode(self, inputs: Sequence[TextInput]) -> EncodedTexts:
        """Token ids of all inputs that have some, and an error for each that has not."""
        errors: dict[int, ServiceError] = {}
        index, encodings = [], []
        for i, (item, encoding) in enumerate(
            zip(inputs, self._encode_all(inputs, errors), strict=True)
        ):
            if encoding is None:
                continue
            error = self.refused(item, len(encoding), bool(encoding.overflowing))
            if error is None:
                index.append(i)
                encodings.append(encoding)
            else:
                errors[i] = error
        has_types = self.type_ids == "always" or (
            self.type_ids == "where_not_zero" and any(item.text_pair is not None for item in inputs)
        )
        return EncodedTexts(
            batch=Encoded(
                input_ids=_concat(encoding.ids for encoding in encodings),
                lengths=np.fromiter((len(e) for e in encodings), np.int32, len(encodings)),
                token_type_ids=_concat(e.type_ids for e in encodings) if has_types else None,
            ),
            index=index,
            truncated=[bool(encoding.overflowing) for encoding in encodings],
            errors=errors,
        )

    def _encode_all(
        self, inputs: Sequence[TextInput], errors: dict[int, ServiceError]
    ) -> list[Any | None]:
        encodings: list[Any | None] = [None] * len(inputs)
        beginnings = self._beginnings
        if beginnings is None or all(len(item.text) < beginnings.min_chars for item in inputs):
            # The library fails the whole call: the ones at fault are found one by one.
            with suppress(Exception):
                encodings = [
                    *self._tokenizer.encode_batch_fast([self._pair(item) for item in inputs])
                ]
        for i, (item, encoding) in enumerate(zip(inputs, encodings, strict=True)):
            # Of a text that is not too long no end is cut off.
            if encoding is not None and not (
                item.options.truncation_side is not None
                and encoding.overflowing
                and self.keeps_end_of(item.options) != self.keeps_end
            ):
                continue
            try:
                encodings[i] = self._encode_one(item)
            except UncuttablePair:
                encodings[i] = None
                errors[i] = InvalidInput(
                    f"a half of the pair has over {_MOST_UNCUT_TOKENS} tokens, and its tokens "
                    "depend on all of it. Shorten it."
                )
            except Exception:
                encodings[i] = None
                errors[i] = InvalidInput(
                    "text is not valid Unicode (a lone surrogate?). Send UTF-8 text."
                )
        return encodings

    def keeps_end_of(self, options: Options) -> bool:
        """Whether a text with these loses its beginning where it is too long."""
        side = options.truncation_side
        return self.keeps_end if side is None else side == "left"

    def _of_other_end(self) -> TextEncoder:
        """Cuts off the other end. Made once it is asked for: a vocabulary may take 0.5 s."""
        with self._making:
            if self._other_end is None:
                tokenizer = type(self._tokenizer).from_str(self.untruncated.to_str())
                tokenizer.encode_special_tokens = self._tokenizer.encode_special_tokens
                side = "right" if self.keeps_end else "left"
                tokenizer.enable_truncation(self.max_length, direction=side)
                self._other_end = TextEncoder(tokenizer, self.max_length, self.type_ids)
                self._other_end.untruncated = self.untruncated
            return self._other_end

    def _encode_one(self, item: TextInput) -> Any:
        if self.keeps_end_of(item.options) != self.keeps_end:
            return self._of_other_end()._encode_one(item)
        if item.text_pair is not None or self._beginnings is None:
            return self._tokenizer.encode_batch_fast([self._pair(item)])[0]
        encoding = None
        for text in self._beginnings.of(item.text):
            (encoding,) = self._tokenizer.encode_batch_fast([text])
            if encoding.overflowing:  # it has all that the model reads, and more
                break
        return encoding

    def _pair(self, item: TextInput) -> str | tuple[str, str]:
        """What the tokenizer is given. Halves that are much too long are cut before.

        Of a pair that is too long the tokenizer also makes what it cuts off, in every combination
        of both halves: of 2 × 16,000 characters 4,000 encodings and 1.2 GB.
        """
        first, second = item.text, item.text_pair
        if second is None:
            return first
        if len(first) + len(second) > 2 * self.max_length:
            encodings = self.untruncated.encode_batch([first, second], add_special_tokens=False)
            lengths = [len(encoding) for encoding in encodings]
            # The longer half stays the longer one: it gets the odd token.
            longer = lengths[0] > lengths[1]
            first = self._kept(first, encodings[0], int(longer))
            second = self._kept(second, encodings[1], int(not longer))
        return first, second

    def _kept(self, text: str, encoding: Any, odd: int) -> str:
        """A part of `text` that has all of its tokens that the model may read, and more tokens than
        that.

        Where words span the whole text (a run of spaces in Llama's tokenizer), a cut moves what
        lies far behind it: then the part is made larger, and in the end it is all of the text.
        """
        for n_margins in (1, 8):
            n_tokens = self.max_length + n_margins * _PAIR_MARGIN + odd
            if len(encoding) <= n_tokens:
                return text
            if self.keeps_end:
                part = text[encoding.token_to_chars(len(encoding) - n_tokens)[0] :]
            else:
                part = text[: encoding.token_to_chars(n_tokens - 1)[1]]
            own = self.untruncated.encode_batch([part], add_special_tokens=False)[0].ids
            read = slice(-self.max_length, None) if self.keeps_end else slice(self.max_length)
            if len(own) >= n_tokens - 1 and own[read] == encoding.ids[read]:
                return part
        if len(encoding) > _MOST_UNCUT_TOKENS:
            raise UncuttablePair
        return text

    def refused(self, item: TextInput, n: int, too_long: bool) -> ServiceError | None:
        """Why a text is no text for this model. n: its tokens, or where it is too long fewer."""
        if not item.text or item.text.isspace():
            return EmptyText("text is empty. Send at least one visible character.")
        if item.text_pair is None and n <= self.marks:
            return EmptyText("text has nothing that the model reads. Send some words.")
        if too_long and not item.options.truncation:
            if n <= self.max_length:
                pair = item.text if item.text_pair is None else (item.text, item.text_pair)
                n = len(self.untruncated.encode_batch_fast([pair])[0])
            return too_many_tokens(n, self.max_length)
        return None


def too_many_tokens(n: int, limit: int) -> TextTooLong:
    return TextTooLong(
        f"text has {n} tokens; the limit is {limit}. Shorten it or send truncation=true."
    )


def _concat(rows: Any) -> Int32:
    return np.fromiter(chain.from_iterable(rows), np.int32)


class Beginnings:
    """Beginnings of long texts that give the same first tokens as all of the text.

    A model reads some hundred tokens; a text may have 100,000 characters, of which it takes the
    tokenizer 80 ms to make tokens that are cut off again. BERT's may be given less than all of it.

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
