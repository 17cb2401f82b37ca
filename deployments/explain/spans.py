"""From tokens to whole characters of the text, as it was before redaction.

Offsets count Unicode code points, as Python's `str` does. A span never splits a grapheme cluster
(Unicode Standard Annex 29): no emoji joined of several, no letter apart from its accent.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import regex

_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a text, and which of its tokens lie in them."""

    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replaced:
    """A part of the original text, and how long what stands in its place is."""

    start: int
    end: int
    length: int


def whole_spans(
    text: str, offsets: Sequence[tuple[int, int]], replaced: Sequence[Replaced] = ()
) -> list[Span]:
    """Spans in order, none overlapping, each of at least one visible character.

    text: the original. offsets: of each token in what the tokenizer read, in order; tokens without
    characters (start = end) belong to no span. replaced: what redaction took out, in order.
    """
    bounds = _bounds(text, replaced)
    origin = _origin(len(text), replaced)
    spans: list[Span] = []
    for i, (start, end) in enumerate(offsets):
        if start >= end:
            continue
        start, end = origin[start][0], origin[end - 1][1]
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if start >= end:
            continue
        start = bounds[bisect_right(bounds, start) - 1]
        end = bounds[bisect_left(bounds, end)]
        if spans and start < spans[-1].end:
            last = spans.pop()
            spans.append(Span(min(last.start, start), max(last.end, end), (*last.tokens, i)))
        else:
            spans.append(Span(start, end, (i,)))
    return spans


def _bounds(text: str, replaced: Sequence[Replaced]) -> list[int]:
    """Where a span may begin or end: between graphemes, and not inside what was taken out."""
    bounds = [0, *(match.end() for match in _GRAPHEME.finditer(text))]
    return [b for b in bounds if not any(one.start < b < one.end for one in replaced)]


def _origin(n_chars: int, replaced: Sequence[Replaced]) -> list[tuple[int, int]]:
    """For each character that the tokenizer read, what it stands for in the original text."""
    origin: list[tuple[int, int]] = []
    at = 0
    for one in replaced:
        origin += [(k, k + 1) for k in range(at, one.start)]
        origin += [(one.start, one.end)] * one.length
        at = one.end
    return origin + [(k, k + 1) for k in range(at, n_chars)]
