"""Long texts in windows: each window goes through the chain as a text of its own, and the logits of
all of them become one answer.

Windows are pieces of the text, cut where sentences or words end, that overlap by some tokens. They
are texts and no ids: whichever model answers, in an update too, reads them by its own tokenizer.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deployments.pipeline.errors import EmptyText, InvalidInput, ServiceError, TextTooLong
from deployments.pipeline.types import (
    BULK_FROM_TEXTS,
    Answer,
    Float32,
    Logits,
    TextInput,
    flow_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from deployments.settings import LongTextSettings

logger = logging.getLogger(__name__)

Pooling = Literal["mean", "max", "length"]
Span = tuple[int, int]
"""The first character and the one behind the last."""

# A sentence ends behind one of these and what closes quotes; a dot alone only before white space.
_SENTENCE_END = re.compile(r"[。！？!?…\n]+[\"'”’」』）)]*|\.+[\"'”’)]*(?=\s)")
_WORD_END = re.compile(r"(?<=\s)|(?<=[\u3040-\u30ff\u4e00-\u9fff])")
# Of a window: how far back from its last token a sentence's end is looked for.
_LOOK_BACK = 0.25
# A piece alone may have a token or two more than within the text: its first word has no space.
_SPARE_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Windows:
    """One long text in pieces. rows: the places of its windows among all that are encoded."""

    rows: range
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is encoded for some texts: windows in the place of the long ones.

    text_of: row → text. windows: text → its windows. errors: text → why it is not read at all.
    redacted: text → placeholders put into it before it was cut.
    """

    inputs: list[TextInput]
    text_of: list[int]
    windows: dict[int, Windows]
    errors: dict[int, ServiceError] = field(default_factory=dict)
    redacted: dict[int, int] = field(default_factory=dict)

    def answers(
        self, results: Sequence[Answer | ServiceError | None]
    ) -> list[Answer | ServiceError | None]:
        """Of each text, out of those of its rows: its answer, or the first of its errors."""
        found: list[Answer | ServiceError | None] = [None] * (
            len(set(self.text_of) | set(self.errors))
        )
        for i, error in self.errors.items():
            found[i] = error
        for text, result in zip(self.text_of, results, strict=True):
            if (
                isinstance(result, dict)
                or found[text] is None
                or isinstance(found[text], EmptyText)
            ):
                found[text] = result or found[text]
        return found

    def split(
        self,
        strange: dict[int, str],
        chosen: Sequence[int],
        results: Sequence[Answer | ServiceError | None],
        model: str,
    ) -> dict[int, str]:
        """`strange`, with all windows of texts that no one model has answered: two did, in an
        update, or one that is new. model: one that did."""
        more = dict(strange)
        asked = set(chosen)
        for own in self.windows.values():
            rows = [row for row in own.rows if row in asked]
            failed = any(
                result is not None and not isinstance(result, EmptyText)
                for result in (results[row] for row in rows)
            )
            open_ = [row for row in rows if results[row] is None]
            if open_ and not failed:
                version = next((strange[row] for row in rows if row in strange), model)
                more |= dict.fromkeys(open_, version)
        return more


def surely_fits(text: str, max_tokens: int) -> bool:
    """Whether a text is so short that no tokenizer makes more tokens of it; marks not counted.

    A token may be a single byte (byte-level BPE, byte fallback), and normalizing may make a text
    longer: U+FDFA, 3 bytes, is 33 in NFKC.
    """
    room = max_tokens - _SPARE_TOKENS
    if text.isascii():
        return len(text) <= room
    if len(text) > room:
        return False
    lower = unicodedata.normalize("NFKD", text.casefold())
    return max(_n_bytes(text), _n_bytes(lower)) <= room


def _n_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def spans_of(
    tokenizer: Tokenizer,
    text: str,
    max_tokens: int,
    overlap_tokens: int,
    window_tokens: int | None = None,
) -> list[Span]:
    """Pieces of at most `window_tokens` tokens each, marks not counted, that cover all of the text.

    One, of all of it, where it has at most `max_tokens`, which windows have by default. Neighbours
    share about `overlap_tokens`.
    """
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    if len(offsets) <= max_tokens:
        return [(0, len(text))]
    room = max(1, (window_tokens or max_tokens) - _SPARE_TOKENS)
    overlap = min(overlap_tokens, room // 2)
    ends = np.asarray([end for _, end in offsets])
    starts = np.asarray([start for start, _ in offsets])
    found: list[Span] = []
    first = 0
    begin = 0
    while True:
        last = first + room  # the token behind the window
        if last >= len(offsets):
            found.append((begin, len(text)))
            return found
        hard = int(starts[last])
        soft = int(ends[max(first, last - max(1, int(_LOOK_BACK * room)))])
        end = _edge(text, max(soft, begin + 1), max(hard, begin + 1))
        found.append((begin, end))
        # The tokens behind this window begin here; the next one takes some of those before.
        behind = int(np.searchsorted(starts, end))
        behind = max(behind, first + 1)
        first = max(behind - overlap, first + 1)
        begin = int(starts[first])
        if overlap and (edges := [m.end() for m in _WORD_END.finditer(text, begin, end)]):
            begin = max(begin, edges[0] if edges[0] < end else begin)
            first = int(np.searchsorted(starts, begin))


def _edge(text: str, soft: int, hard: int) -> int:
    """Where to cut between the two: behind the last sentence, or else the last word."""
    for pattern in (_SENTENCE_END, _WORD_END):
        ends = [match.end() for match in pattern.finditer(text, soft, hard)]
        if ends:
            return min(ends[-1], hard)
    return hard


def planned(
    inputs: Sequence[TextInput],
    tokenizer: Tokenizer,
    max_length: int,
    settings: LongTextSettings,
    redact: Callable[[TextInput], tuple[TextInput, int]] | None = None,
) -> Plan:
    """Windows of all texts that want them and are too long for the model.

    redact: puts placeholders for personal data, before a cut can go through it.
    """
    rows: list[TextInput] = []
    text_of: list[int] = []
    windows: dict[int, Windows] = {}
    errors: dict[int, ServiceError] = {}
    redacted: dict[int, int] = {}
    marks = tokenizer.num_special_tokens_to_add(is_pair=False)
    for i, given in enumerate(inputs):
        item = given
        pieces, n_redacted = [(0, len(item.text))], 0
        if item.options.in_windows(settings.strategy) and item.token_ids is None:
            try:
                if redact is not None:
                    item, n_redacted = redact(item)
                pieces = _pieces(item, tokenizer, max_length, marks, settings)
            except ServiceError as exc:
                errors[i] = exc
                continue
            except Exception:
                logger.debug("no windows: whoever encodes this text says what is wrong with it")
        if len(pieces) < 2:
            rows.append(given)
            text_of.append(i)
            continue
        if redact is not None:
            redacted[i] = n_redacted
        flow = item.flow
        if len(pieces) >= BULK_FROM_TEXTS and flow.priority == "interactive":
            flow = flow_of("bulk", flow.client, len(pieces))
        windows[i] = Windows(range(len(rows), len(rows) + len(pieces)), tuple(pieces))
        for start, end in pieces:
            rows.append(replace(item, text=item.text[start:end], flow=flow))
            text_of.append(i)
    return Plan(rows, text_of, windows, errors, redacted)


def _pieces(
    item: TextInput, tokenizer: Tokenizer, max_length: int, marks: int, settings: LongTextSettings
) -> list[Span]:
    room = max_length - marks
    if item.text_pair is not None:
        # The second text stands beside each window of the first.
        beside = len(tokenizer.encode(item.text_pair, add_special_tokens=False))
        room = max_length - tokenizer.num_special_tokens_to_add(is_pair=True) - beside
        if room < max_length // 4:
            raise InvalidInput(
                f"text_pair has {beside} tokens, which leaves {max(room, 0)} of {max_length} for a "
                "window of the text. Shorten text_pair, or send long_text=truncate."
            )
    if surely_fits(item.text, room):
        return [(0, len(item.text))]
    size = min(max_length, settings.window_tokens or max_length)
    window = max(1, size - (max_length - room))
    spans = spans_of(tokenizer, item.text, room, settings.overlap_tokens, window)
    spans = [(start, end) for start, end in spans if not item.text[start:end].isspace()]
    if len(spans) > settings.max_windows:
        raise TextTooLong(
            f"text makes {len(spans)} windows of {size} tokens; the limit is "
            f"{settings.max_windows}. Shorten it, or send long_text=truncate."
        )
    return spans


@dataclass(frozen=True, slots=True)
class Pooled:
    """places: of single texts, and of the first windows of long ones. logits: a row for each.
    seen: place → what the answer of a long text says beside its labels."""

    places: list[int]
    logits: Logits
    seen: dict[int, dict[str, Any]]


def pooled(
    plan: Plan,
    row_of: Sequence[int],
    places: Sequence[int],
    logits: Logits,
    lengths: Sequence[int],
    cut: Sequence[bool],
    dropped: set[int],
    pooling: Pooling,
) -> Pooled:
    """One row for each text whose windows are all here; windows of others are left out.

    row_of: place in the batch → row of the plan. lengths: tokens, by place. cut: whether some were
    cut off, by place. dropped: rows with nothing to read; a text may lose such windows.
    """
    at = {row_of[place]: k for k, place in enumerate(places)}
    kept: list[int] = []
    values: list[Float32] = []
    errors: dict[int, ServiceError] = {}
    seen: dict[int, dict[str, Any]] = {}
    for k, place in enumerate(places):
        text = plan.text_of[row_of[place]]
        own = plan.windows.get(text)
        if own is None:
            rows = [k]
        else:
            here = [row for row in own.rows if row not in dropped]
            if row_of[place] != here[0] or any(row not in at for row in here):
                continue
            rows = [at[row] for row in here]
        error = next((logits.errors[r] for r in rows if logits.errors and r in logits.errors), None)
        if error is not None:
            errors[len(kept)] = error
        if own is not None:
            n = [int(lengths[places[r]]) for r in rows]
            one, deciding = _together(logits.values[rows], n, pooling)
            start, end = own.spans[here[deciding] - own.rows.start]
            seen[place] = {
                "tokens": sum(n),
                "truncated": any(cut[places[r]] for r in rows),
                **({"redacted": plan.redacted[text]} if text in plan.redacted else {}),
                "windows": {
                    "count": len(rows),
                    "pooling": pooling,
                    "deciding": {"index": deciding, "start": start, "end": end},
                },
            }
            values.append(one)
        else:
            values.append(logits.values[k])
        kept.append(place)
    table = np.stack(values) if values else logits.values[:0]
    return Pooled(kept, replace(logits, values=table, errors=errors or None), seen)


def _together(values: Float32, lengths: Sequence[int], pooling: Pooling) -> tuple[Float32, int]:
    """Logits of all windows as one row, and which window says most of the label that wins.

    mean: of the logits; length: weighted by tokens; max: of each label the highest.
    """
    weights = np.asarray(lengths, np.float64)
    if pooling == "max":
        one = values.max(0)
    elif pooling == "length":
        one = np.average(values, axis=0, weights=weights)
    else:
        one = values.mean(0)
    winner = int(one.argmax())
    if values.shape[1] == 1:
        margin = np.abs(values[:, 0])
    else:
        # Against the other labels: a window sure of all of them decides nothing.
        margin = values[:, winner] - np.delete(values, winner, axis=1).max(1)
    said = margin * weights if pooling == "length" else margin
    return one.astype(np.float32), int(said.argmax())
