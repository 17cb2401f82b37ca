"""ClassifyRequest → what the service classifies. Here the limits on texts hold."""

from __future__ import annotations

from deployments.http.caller import NOBODY, Caller
from deployments.http.schemas import ClassifyRequest
from deployments.pipeline.errors import EmptyText, InvalidInput, ServiceError, TextTooLong, TooLarge
from deployments.pipeline.types import TextInput, flow_of
from deployments.settings import LimitSettings


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
    options = request.options
    flow = flow_of(caller.priority, caller.client, len(texts))
    inputs: list[TextInput | ServiceError] = []
    for text, pair in zip(texts, pairs, strict=True):
        if isinstance(text, str) and pair is None:
            inputs.append(_fault(text, "text", limits) or TextInput(text, None, options, flow))
        elif isinstance(text, str) and isinstance(pair, str):
            inputs.append(
                _fault(text, "text", limits)
                or _fault(pair, "text_pair", limits)
                or TextInput(text, pair, options, flow)
            )
        else:
            inputs.append(_not_a_text(text, pair))
    return inputs


def _pairs_of(request: ClassifyRequest, count: int, limit: int) -> list[object]:
    """The second halves of a list of `count` texts; None where there is none."""
    if count == 0:
        raise InvalidInput("`text` is an empty list. Send at least 1 text.")
    if count > limit:
        raise TooLarge(f"text has {count} texts; the limit is {limit}. Send several requests.")
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


def _not_a_text(text: object, pair: object) -> InvalidInput:
    field, value = ("text_pair", pair) if isinstance(text, str) else ("text", text)
    return InvalidInput(f"{field} must be a string; got {_JSON_NAMES.get(type(value), 'no text')}.")
