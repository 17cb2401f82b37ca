"""A faster tokenizer in the place of the model's own, as long as it gives the same ids.

`tokenizers` stays the reference: it encodes pairs and what the other can't, proves it when a model
is met, and encodes one text in some thousand a second time as long as it runs.
"""

from __future__ import annotations

import logging
import random
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from deployments.pipeline.errors import ServiceError
from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.tasks import Encoder
from deployments.pipeline.tokenize import INLINE_S, EncodedTexts, TextEncoder
from deployments.pipeline.types import Encoded, Int32, Options, TextInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

# One text of so many is encoded twice. Longer ones would take the reference over a millisecond.
SAMPLED_TEXTS = 2_000
SAMPLED_CHARS = 500
_SAMPLING = ThreadPoolExecutor(1, thread_name_prefix="check-tokenizer")

_PROBES = 64  # a batch
# Of probes: fixed, so that a start that passed passes again.
_SEED = 20261128
_CHARS = 24  # of a probe of characters
_MIXED = 1_000
# Ideographs of the supplementary planes, private use, and what is not assigned: one in so many.
_RARE = 31
_LONG_TOKENS = 3  # times `max_length`


class FastTokenizer(Protocol):
    """Single texts → ids. Several threads may call it at once.

    prefix, suffix: ids of the marks around each text.
    """

    prefix: Int32
    suffix: Int32

    def encode(self, texts: Sequence[str]) -> tuple[Int32, Int32]:
        """Ids of all texts, concatenated, whole and with their marks; and how many each has.

        May raise anything: the reference is asked then.
        """
        ...


class WordPiece:
    """nanotoken's WordPiece, which takes a fifth of the time (docs/log.md).

    It remembers pieces of the texts that it has seen. With room for one it remembers next to
    nothing, and is as fast on Chinese; `tests/unit/test_fast_tokenizer.py` looks into its memory.

    Raises:
        ImportError: it is not installed.
        ValueError: no WordPiece, or one of a kind that it does not know.
    """

    def __init__(self, tokenizer_json: str) -> None:
        from nanotoken import nanotoken_rs

        nanotoken_rs.set_cache_entries(1)
        self._tokenizer: Any = nanotoken_rs.WordPieceTokenizer.from_json(tokenizer_json)
        self.prefix = np.asarray(self._tokenizer.prefix_ids, np.int32)
        self.suffix = np.asarray(self._tokenizer.suffix_ids, np.int32)

    def encode(self, texts: Sequence[str]) -> tuple[Int32, Int32]:
        # Not in threads of its own: they would crowd out the model's.
        ids, offsets = self._tokenizer.encode_batch(texts, parallel=False)
        return ids.view(np.int32), np.diff(offsets).astype(np.int32)


def fast_tokenizer(reference: Tokenizer) -> FastTokenizer | None:
    """The one for this tokenizer, unproven; None where there is none."""
    from tokenizers import models

    # Of a mark that is to be read as text it knows nothing.
    if not isinstance(reference.model, models.WordPiece) or reference.encode_special_tokens:
        return None
    try:
        return WordPiece(reference.to_str())
    except ImportError:
        logger.debug("nanotoken is not installed: `tokenizers` does all of it")
    except Exception as exc:
        logger.info("nanotoken does not know this tokenizer: %s", type(exc).__name__)
    return None


class FastEncoder:
    """A TextEncoder whose single texts go through a faster tokenizer. See `tasks.Encoder`.

    To be had from `faster`, which proves that it gives the same. observer: told of each text that
    is encoded twice.
    """

    def __init__(
        self, reference: TextEncoder, fast: FastTokenizer, observer: Observer = SILENT
    ) -> None:
        self._observer = observer
        self.max_length = reference.max_length
        self.inline_chars = reference.inline_chars
        self.untruncated = reference.untruncated
        self._reference = reference
        self._fast: FastTokenizer | None = fast
        self._unsampled = 0

    @property
    def is_fast(self) -> bool:
        """Whether it is used; a difference ends that."""
        return self._fast is not None

    def encode(self, inputs: Sequence[TextInput]) -> EncodedTexts:
        """As the reference."""
        encoded = self._encoded(inputs)
        if encoded is None:
            return self._reference.encode(inputs)
        self._unsampled += len(inputs)
        if self._unsampled >= SAMPLED_TEXTS and len(inputs[-1].text) <= SAMPLED_CHARS:
            self._unsampled = 0
            _SAMPLING.submit(self.check, [inputs[-1]])
        return encoded

    def check(self, inputs: Sequence[TextInput]) -> bool:
        """Whether both give the same for these; if not, the reference does all from now on."""
        encoded = self._encoded(inputs)
        if encoded is None:
            return True
        same = _same(encoded, self._reference.encode(inputs))
        self._observer.tokenizer_checked(same=same)
        if same:
            return True
        self._fast = None
        logger.error(
            "the faster tokenizer gave other ids: from now on `tokenizers` does all of it. "
            "Please report it, with the versions of nanotoken and tokenizers."
        )
        return False

    def prove(self) -> bool:
        """Whether both give the same for all probes, whole and cut. Measures `inline_chars` too."""
        texts = list(probes(self._reference.untruncated, self.max_length))
        chars, seconds = 0, 0.0
        for truncation, some_texts in ((True, texts), (False, texts[-_PROBES:])):
            asked = Options(truncation=truncation)
            inputs = [TextInput(text, options=asked) for text in some_texts]
            for start in range(0, len(inputs), _PROBES):
                some = inputs[start : start + _PROBES]
                started = time.perf_counter()
                encoded = self._encoded(some)
                seconds += time.perf_counter() - started
                chars += sum(len(item.text) for item in some)
                if encoded is not None and not _same(encoded, self._reference.encode(some)):
                    return False
        self.inline_chars = max(self.inline_chars, int(INLINE_S * chars / seconds))
        return True

    def _encoded(self, inputs: Sequence[TextInput]) -> EncodedTexts | None:
        """None where the reference is to be asked: for pairs, for texts of which it needs the
        beginning only, and for what is no Unicode."""
        fast, longest = self._fast, self._reference.longest_whole
        if fast is None:
            return None
        texts = []
        for item in inputs:
            if item.text_pair is not None or len(item.text) >= longest:
                return None
            texts.append(item.text)
        try:
            ids, lengths = fast.encode(texts)
        except BaseException as exc:
            # A panic in Rust is no Exception.
            if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
                raise
            return None
        n_tokens = lengths.tolist()
        most, least = self.max_length, self._reference.marks
        if (
            min(n_tokens, default=most) > least
            and max(n_tokens, default=0) <= most
            and not any(map(str.isspace, texts))
        ):
            return EncodedTexts(
                Encoded(ids, lengths), list(range(len(texts))), [False] * len(texts), {}
            )
        rows, index, truncated = [np.zeros(0, np.int32)], [], []
        errors: dict[int, ServiceError] = {}
        row_of = np.split(ids, np.cumsum(lengths)[:-1])
        for i, (item, row, n) in enumerate(zip(inputs, row_of, n_tokens, strict=True)):
            error = self._reference.refused(item, n, n > most)
            if error is not None:
                errors[i] = error
                continue
            keeps_end = self._reference.keeps_end_of(item.options)
            rows.append(row if n <= most else self._cut(row, fast, keeps_end))
            index.append(i)
            truncated.append(n > most)
        kept = np.asarray([len(row) for row in rows[1:]], np.int32)
        return EncodedTexts(Encoded(np.concatenate(rows), kept), index, truncated, errors)

    def _cut(self, row: Int32, fast: FastTokenizer, keeps_end: bool) -> Int32:
        """Of a text's ids with its marks as many as the model reads."""
        before, after = fast.prefix, fast.suffix
        if keeps_end:
            return np.concatenate([before, row[len(row) - self.max_length + len(before) :]])
        return np.concatenate([row[: self.max_length - len(after)], after])


def faster(
    reference: Encoder,
    make: Callable[[Tokenizer], FastTokenizer | None] = fast_tokenizer,
    observer: Observer = SILENT,
) -> Encoder:
    """The reference, or where another gives the same ids in less time, that with the reference."""
    if not isinstance(reference, TextEncoder) or reference.type_ids == "always":
        return reference
    fast = make(reference.untruncated)
    if fast is None:
        return reference
    found = FastEncoder(reference, fast, observer)
    if found.prove():
        return found
    logger.info("a faster tokenizer gives other ids: `tokenizers` does all of it")
    return reference


def _same(one: EncodedTexts, other: EncodedTexts) -> bool:
    """Whether ids, cuts and errors are."""
    return (
        one.index == other.index
        and one.truncated == other.truncated
        and np.array_equal(one.batch.lengths, other.batch.lengths)
        and np.array_equal(one.batch.input_ids, other.batch.input_ids)
        and [(i, str(e)) for i, e in sorted(one.errors.items())]
        == [(i, str(e)) for i, e in sorted(other.errors.items())]
    )


def probes(reference: Tokenizer, max_length: int) -> Iterator[str]:
    """Some thousand texts: every character of Unicode's first two planes, some of the others, and
    pieces of the vocabulary, marks and added tokens, in odd company; and such as have more tokens
    than `max_length`."""
    draw = random.Random(_SEED)  # noqa: S311
    added = [token.content for token in reference.get_added_tokens_decoder().values()]
    vocabulary = [word.removeprefix("##") for word in reference.get_vocab(with_added_tokens=False)]
    vocabulary.sort()
    company = [
        *(" ", "  ", "\t", "\n", "\u3000", "\u00a0", "\x0b", "\x0c", "\x00", "\ufffd", "\u200d"),
        *("a", "A", "é", "e\u0301", "İ", "ß", "1", ".", "-", "'", "好", "。", "\U0001f600"),
        *added,
    ]

    def mixed(parts: Sequence[str], n: int) -> str:
        return "".join(draw.choice(parts if draw.random() < 0.6 else company) for _ in range(n))

    characters = list(map(chr, range(0x20000, 0x110000, _RARE)))
    for point in range(0x20000):
        kind = unicodedata.category(one := chr(point))
        if kind not in ("Cn", "Co", "Cs") or (kind != "Cs" and point % _RARE == 0):
            characters.append(one)
    for start in range(0, len(characters), _CHARS):
        some = characters[start : start + _CHARS]
        draw.shuffle(some)
        yield "".join(one if draw.random() < 0.7 else one + draw.choice(company) for one in some)
    for k in range(_MIXED):
        words = [draw.choice(vocabulary) for _ in range(6)]
        yield (" " if k % 2 else "").join(words)
        yield mixed([*words, *added], 8)
    yield from ("", " ", "x" * 101, "好" * 120, "a" * 99 + " b")
    for words in (vocabulary, ["好", "坏", "，"], ["Room ", "no. 1, "]):
        yield " ".join(draw.choice(words) for _ in range(_LONG_TOKENS * max_length))
        yield mixed(words, _LONG_TOKENS * max_length)
