"""Texts as the model's tokenizer sees them, and back, for callers who ask for just that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from deployments.pipeline.errors import InvalidInput, Overloaded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

T = TypeVar("T")

_MOST_WAITING = 64


@dataclass(frozen=True, slots=True)
class Token:
    """One token. start, stop: its place in the text's UTF-8, in bytes; None of an added mark."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TokenViews:
    """What a tokenizer makes of texts, off the event loop.

    All of it takes turns in one thread: who looks at tokens must not slow those who classify.

    tokenizer: gives the one of now, cutting nothing.
    """

    def __init__(self, tokenizer: Callable[[], Tokenizer]) -> None:
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="token-views")
        self._waiting = 0

    async def tokenize(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[Token]]:
        """The tokens of each text, whole.

        Raises:
            InvalidInput: a text is no Unicode.
            NotReady: no model is known yet.
            Overloaded: too many wait for the thread.
        """
        return await self._apart(tokens_of, texts, add_special_tokens)

    async def decode(self, rows: Sequence[list[int]], skip_special_tokens: bool) -> list[str]:
        """The text of each row of ids; ids that the vocabulary has not are left out.

        Raises:
            NotReady, Overloaded: as `tokenize`.
        """
        return await self._apart(texts_of, rows, skip_special_tokens)

    async def _apart(self, work: Callable[..., T], *what: Any) -> T:
        tokenizer = self._tokenizer()
        if self._waiting >= _MOST_WAITING:
            raise Overloaded(f"{self._waiting} requests wait for the tokenizer. Retry later.")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, work, tokenizer, *what)
        finally:
            self._waiting -= 1


def tokens_of(
    tokenizer: Tokenizer, texts: Sequence[str], add_special_tokens: bool
) -> list[list[Token]]:
    """See `TokenViews.tokenize`."""
    try:
        encodings = tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
    except Exception:
        raise InvalidInput("A text is not valid Unicode. Send UTF-8 text.") from None
    return [_tokens(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]


def _tokens(text: str, encoding: Any) -> list[Token]:
    # The library counts characters in Python, bytes in Rust.
    places = range(len(text) + 1) if text.isascii() else _bytes_before(text)
    marks = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, strict=True)
    return [
        Token(token_id, name, True, None, None)
        if special
        else Token(token_id, text[start:stop], False, places[start], places[stop])
        for (token_id, name, special), (start, stop) in zip(marks, encoding.offsets, strict=True)
    ]


def _bytes_before(text: str) -> list[int]:
    """How many bytes of UTF-8 stand before each character, and before the end."""
    return list(accumulate((len(one.encode()) for one in text), initial=0))


def texts_of(
    tokenizer: Tokenizer, rows: Sequence[list[int]], skip_special_tokens: bool
) -> list[str]:
    """See `TokenViews.decode`."""
    made: list[str] = tokenizer.decode_batch(rows, skip_special_tokens=skip_special_tokens)
    return made
