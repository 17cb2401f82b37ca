"""A body that is lines of JSON, read as it arrives; and what one line asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from deployments.http.body import HeldBytes
from deployments.http.inputs import Caller, inputs_of
from deployments.http.json_body import loaded, request_from
from deployments.http.schemas import ClassifyRequest
from deployments.pipeline.errors import DeadlineExceeded, InvalidInput, ServiceError, TooLarge
from deployments.pipeline.types import Flow, TextInput
from deployments.settings import LimitSettings

Id = str | int | None

_EXAMPLE = 'Send {"id": 1, "text": "..."} in one line.'


@dataclass(slots=True)
class Line:
    """number: from 1 on. content: without its end; None where it was too long to be kept."""

    number: int
    content: bytes | None

    def __repr__(self) -> str:
        return f"Line({self.number}, ...)"  # a repr may end up in a log


class LineRequest(ClassifyRequest, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One text, and what its answer is to be known by."""

    id: Id = None


_decoder = msgspec.json.Decoder(LineRequest)


async def lines_of(
    receive: Receive, limits: LimitSettings, held: HeldBytes
) -> AsyncIterator[list[Line]]:
    """Lines as they come, in order: at each step all that are whole by then. Empty ones are none.

    A line over `max_body_bytes` is dropped as it arrives. held: counts what waits for its end.

    Raises:
        DeadlineExceeded: nothing came for `body_timeout_s`.
        Overloaded: all requests together hold too much.
        ClientDisconnect: the sender went away before the end.
    """
    share, number, more = held.share(), 0, True
    rest, dropping = b"", False
    try:
        while more:
            message = await _received(receive, limits.body_timeout_s)
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            *whole, rest = (rest + message.get("body", b"")).split(b"\n")
            if not more:
                whole.append(rest)
            lines = []
            for content in whole:
                number += 1
                if dropping or len(content) > limits.max_body_bytes:
                    lines.append(Line(number, None))
                elif content.strip():
                    lines.append(Line(number, content))
                dropping = False
            if len(rest) > limits.max_body_bytes:
                rest, dropping = b"", True
            share.give_back()
            share.take(len(rest))
            if lines:
                yield lines
    finally:
        share.give_back()


async def _received(receive: Receive, timeout_s: float) -> Message:
    try:
        async with asyncio.timeout(timeout_s):
            return await receive()
    except TimeoutError:
        raise DeadlineExceeded(
            f"No line came for {timeout_s:g} s, so the stream ends here. Send the rest in another."
        ) from None


def asked(line: Line, limits: LimitSettings, flow: Flow) -> tuple[Id, TextInput | ServiceError]:
    """The line's id, and its text, or why it can't be classified."""
    if line.content is None:
        size = f"{limits.max_body_bytes} bytes"
        return None, TooLarge(f"The line has more than {size}, the limit. Send a shorter text.")
    key: Id = None
    request: ClassifyRequest
    try:
        request = own = _decoder.decode(line.content)
        key = own.id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = loaded(line.content, _EXAMPLE)
            if isinstance(value, dict):
                given = value.pop("id", None)
                if not isinstance(given, Id) or isinstance(given, bool):
                    raise InvalidInput("`id` must be a string or a whole number.") from None
                key = given
            request = request_from(value)
        except ServiceError as exc:
            exc.__traceback__ = None
            return key, exc
    if not isinstance(request.text, str):
        return key, InvalidInput(f"A line holds one text; `text` is a list. {_EXAMPLE}")
    if request.explain:
        return key, InvalidInput("A stream explains nothing. Send the text to POST /explain.")
    (item,) = inputs_of(request, limits, Caller(flow.client, None, flow.priority))
    return key, item if isinstance(item, ServiceError) else replace(item, flow=flow)
