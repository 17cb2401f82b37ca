"""ClassifyRequest → what the service classifies, for whom. Here the limits on texts hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from starlette.types import Scope

from deployments.http.schemas import MAX_TIMEOUT_MS, ClassifyRequest
from deployments.pipeline.errors import EmptyText, InvalidInput, ServiceError, TextTooLong, TooLarge
from deployments.pipeline.types import WEIGHTS, Options, Priority, TextInput, flow_of
from deployments.settings import LimitSettings

CLIENT = "rayclassify.client"
"""Key in the ASGI scope under which whoever knows the client better than a header puts its name."""

_MAX_CLIENT_CHARS = 128


class Caller(NamedTuple):
    """client: "" where nobody can tell. timeout_s, priority: None where the request is silent."""

    client: str = ""
    timeout_s: float | None = None
    priority: Priority | None = None


NOBODY = Caller()


def caller_of(
    scope: Scope,
    limits: LimitSettings,
    timeout_ms: int | None = None,
    priority: Priority | None = None,
) -> Caller:
    """What the body says (timeout_ms, priority), else what headers say.

    Raises:
        InvalidInput: a header has no sensible value.
    """
    client: str = scope.get(CLIENT, "")
    wanted = limits.client_header.encode() if limits.client_header else None
    for name, value in scope["headers"]:
        if name == b"x-timeout-ms" and timeout_ms is None:
            timeout_ms = _timeout_ms(value)
        elif name == b"x-priority" and priority is None:
            priority = _priority(value)
        elif name == wanted and not client:
            # Of several the last was added by the proxy nearest to us, and others by anybody.
            client = value.decode("latin-1").rpartition(",")[2].strip()[:_MAX_CLIENT_CHARS]
    return Caller(client, None if timeout_ms is None else timeout_ms / 1e3, priority)


def _timeout_ms(value: bytes) -> int:
    # The length first: turning a long number into an int is costly.
    sensible = value.isdigit() and len(value) <= len(str(MAX_TIMEOUT_MS))
    if not sensible or not 1 <= int(value) <= MAX_TIMEOUT_MS:
        raise InvalidInput(f"X-Timeout-Ms must be a whole number from 1 to {MAX_TIMEOUT_MS}.")
    return int(value)


def _priority(value: bytes) -> Priority:
    said = value.decode("latin-1").strip().lower()
    for priority in WEIGHTS:
        if said == priority:
            return priority
    raise InvalidInput(f"X-Priority must be {' or '.join(WEIGHTS)}.")


def inputs_of(
    request: ClassifyRequest, limits: LimitSettings, caller: Caller = NOBODY
) -> list[TextInput | ServiceError]:
    """One entry per text, in order: the text, or why it can't be classified.

    Raises:
        InvalidInput: an empty list, or a `text_pair` that does not match `text`.
        TooLarge: more texts than one request may hold.
    """
    texts: list[object]
    pairs: list[object]
    if isinstance(request.text, str):
        if isinstance(request.text_pair, list):
            raise InvalidInput("`text` is one text and `text_pair` a list. Make both a list.")
        texts, pairs = [request.text], [request.text_pair]
    else:
        texts = request.text
        pairs = _pairs_of(request, len(texts), limits.max_batch_texts)
    return checked(texts, pairs, request.options, limits, caller)


def sequences_of(
    items: Sequence[object],
    options: Options,
    limits: LimitSettings,
    caller: Caller = NOBODY,
    field: str = "inputs",
) -> list[TextInput | ServiceError]:
    """One entry per item, in order: of a text, of a pair `[text, text]` or of a lone `[text]`.

    field: what the caller calls them, for errors.

    Raises:
        InvalidInput: there are none.
        TooLarge: more than one request may hold.
    """
    _check_count(len(items), limits.max_batch_texts, field)
    texts: list[object] = []
    pairs: list[object] = []
    for item in items:
        few = isinstance(item, list | tuple) and 1 <= len(item) <= 2
        first, second = (item[0], item[1] if len(item) == 2 else None) if few else (item, None)  # type: ignore[index,arg-type]
        texts.append(first)
        pairs.append(second)
    return checked(texts, pairs, options, limits, caller, field)


def token_ids_of(
    rows: Sequence[object],
    options: Options,
    limits: LimitSettings,
    caller: Caller = NOBODY,
    field: str = "input",
) -> list[TextInput | ServiceError]:
    """One entry per row of token ids, in order.

    Raises: as `sequences_of`.
    """
    _check_count(len(rows), limits.max_batch_texts, field)
    flow = flow_of(caller.priority, caller.client, len(rows))
    inputs: list[TextInput | ServiceError] = []
    for row in rows:
        if not isinstance(row, list) or not all(type(one) is int for one in row):
            inputs.append(InvalidInput(f"{field} must be a list of token ids, whole numbers."))
        elif not row:
            inputs.append(EmptyText(f"{field} has no token ids. Send some."))
        elif len(row) > limits.max_text_chars:
            inputs.append(
                TextTooLong(
                    f"{field} has {len(row)} token ids; the limit is {limits.max_text_chars}. "
                    "Send fewer."
                )
            )
        else:
            text = " ".join(map(str, row))
            inputs.append(TextInput(text, None, options, flow, tuple(row)))
    return inputs


def as_sequence(item: object, *keys: str) -> object:
    """What `sequences_of` takes, of `{"text": ..., "text_pair": ...}`; all else as it came.

    keys: what the text may be called.
    """
    if not isinstance(item, dict):
        return item
    for key in keys:
        if key in item:
            return item[key], item.get("text_pair")
    return item


def checked(
    texts: Sequence[object],
    pairs: Sequence[object],
    options: Options,
    limits: LimitSettings,
    caller: Caller = NOBODY,
    field: str = "text",
) -> list[TextInput | ServiceError]:
    """One entry per text, in order. pairs: their second halves, None where there is none."""
    flow = flow_of(caller.priority, caller.client, len(texts))
    inputs: list[TextInput | ServiceError] = []
    for text, pair in zip(texts, pairs, strict=True):
        if isinstance(text, str) and pair is None:
            inputs.append(_fault(text, field, limits) or TextInput(text, None, options, flow))
        elif isinstance(text, str) and isinstance(pair, str):
            inputs.append(
                _fault(text, field, limits)
                or _fault(pair, f"{field}_pair", limits)
                or TextInput(text, pair, options, flow)
            )
        else:
            inputs.append(_not_a_text(text, pair, field))
    return inputs


def _check_count(count: int, limit: int, field: str) -> None:
    if count == 0:
        raise InvalidInput(f"`{field}` is an empty list. Send at least 1 text.")
    if count > limit:
        raise TooLarge(f"{field} has {count} texts; the limit is {limit}. Send several requests.")


def _pairs_of(request: ClassifyRequest, count: int, limit: int) -> list[object]:
    """The second halves of a list of `count` texts; None where there is none."""
    _check_count(count, limit, "text")
    pairs = request.text_pair
    if pairs is None:
        return [None] * count
    if isinstance(pairs, str):
        raise InvalidInput("`text` is a list and `text_pair` one text. Make both a list.")
    if len(pairs) != count:
        raise InvalidInput(
            f"`text` has {count} texts and `text_pair` has {len(pairs)}. Give each text one."
        )
    return pairs


def _fault(text: str, field: str, limits: LimitSettings) -> ServiceError | None:
    if not text or text.isspace():
        return EmptyText(f"{field} is empty or only spaces. Send some words.")
    if len(text) > limits.max_text_chars:
        return TextTooLong(
            f"{field} has {len(text)} characters; the limit is {limits.max_text_chars}. "
            "Shorten it or split it into several texts."
        )
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        return InvalidInput(
            f"{field} is not valid Unicode at character {exc.start}: half a surrogate pair, or "
            "bytes that are not UTF-8. Send it as UTF-8."
        )
    return None


_JSON_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def _not_a_text(text: object, pair: object, field: str) -> InvalidInput:
    field, value = (f"{field}_pair", pair) if isinstance(text, str) else (field, text)
    return InvalidInput(f"{field} must be a string; got {_JSON_NAMES.get(type(value), 'no text')}.")
