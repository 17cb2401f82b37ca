"""The body of a request: read within its limits, and parsed beside the loop where it is large."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from deployments.http.dialects.base import Body, Dialect, Question, ReadsMore
from deployments.http.media_types import ACCEPTED, JSON, media_type_of
from deployments.pipeline.errors import DeadlineExceeded, Overloaded, TooLarge, UnsupportedMediaType
from deployments.pipeline.observer import SILENT, Observer
from deployments.settings import LimitSettings

# Larger bodies can hold up to 0.1 s of parsing: one at a time, beside the event loop.
LARGE_BYTES = 100_000
_large_bodies = ThreadPoolExecutor(1, thread_name_prefix="large-bodies")

# Longer Content-Length values are beyond any limit, and costly to turn into numbers.
_MAX_LENGTH_DIGITS = 18


async def read_question(
    scope: Scope,
    receive: Receive,
    dialect: Dialect,
    limits: LimitSettings,
    held: HeldBytes,
    observer: Observer = SILENT,
) -> Question:
    """Reads the body of a POST, and has the dialect understand it.

    held: counts what is read, until it is decoded.

    Raises:
        Overloaded: all requests together hold too much.
        BadRequest, InvalidInput, TooLarge, UnsupportedMediaType: see their messages.
        DeadlineExceeded: the body took longer than `body_timeout_s`.
        ClientDisconnect: the client went away before all of the body was there.
    """
    content_type = length = encoding = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding":
            encoding = value
    if encoding and encoding.lower() != b"identity":
        raise UnsupportedMediaType("Compressed bodies are not accepted. Send it uncompressed.")
    _check_declared(length, limits.max_body_bytes)
    header = content_type.decode("latin-1")
    media_type = JSON
    if content_type not in (b"application/json", b""):
        accepted = dialect.media_types if isinstance(dialect, ReadsMore) else ACCEPTED
        media_type = media_type_of(header, accepted)
    share = held.share()
    try:
        body = await _body_in_time(receive, limits, share)
        asked = Body(body, media_type, header)
        started = time.perf_counter()
        question = await parsed(len(body), dialect.parse, asked, scope)
        observer.stage("parse", time.perf_counter() - started, len(question.inputs))
        return question
    finally:
        share.give_back()


async def parsed(size: int, parse: Callable[..., Question], *of: Any) -> Question:
    """What `parse(*of)` reads in a request of `size` bytes: beside the loop where it is large."""
    if size < LARGE_BYTES:
        return parse(*of)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_large_bodies, _parsed_apart, parse, *of)


def _parsed_apart(parse: Callable[..., Question], *of: Any) -> Question:
    # As it makes objects by the hundred thousand, Python's collector would look through all of them
    # and the whole process again and again, with everybody waiting: `{"text": [[],[],...` took five
    # times as long.
    collects = gc.isenabled()
    gc.disable()
    try:
        return parse(*of)
    finally:
        if collects:
            gc.enable()


async def _body_in_time(receive: Receive, limits: LimitSettings, share: Share) -> bytes:
    # Of all chunks together: a client that sends a byte now and then keeps every other timer quiet.
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            return await read_body(receive, limits.max_body_bytes, share)
    except TimeoutError:
        raise DeadlineExceeded(
            f"The body was not complete after {limits.body_timeout_s:g} s. Send it faster, or "
            "several smaller requests."
        ) from None


async def read_body(receive: Receive, limit: int, share: Share) -> bytes:
    """All of the body, at most `limit` bytes; stops reading where it grows beyond that.

    Raises:
        TooLarge, Overloaded, ClientDisconnect.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(f"at least {size}", limit)
        if not message.get("more_body", False):
            return b"".join([*chunks, chunk]) if chunks else chunk
        share.take(len(chunk))
        chunks.append(chunk)


def _check_declared(length: bytes, limit: int) -> None:
    if not length.isdigit():
        return
    if len(length) > _MAX_LENGTH_DIGITS:
        raise _too_large(f"over 10^{_MAX_LENGTH_DIGITS}", limit)
    if int(length) > limit:
        raise _too_large(str(int(length)), limit)


def _too_large(size: str, limit: int) -> TooLarge:
    return TooLarge(f"The body has {size} bytes; the limit is {limit}. Send several requests.")


class HeldBytes:
    """Bytes of bodies that are not whole or not parsed yet, of one process.

    Thousands of connections that each send most of a body and then pause would else fill its
    memory, long before anything counts their texts.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.now = 0

    def share(self) -> Share:
        """What one request holds of them."""
        return Share(self)

    def _take(self, size: int) -> None:
        if self.now + size > self._limit:
            raise Overloaded(
                f"The bodies under way hold {self.now} bytes, the limit is {self._limit}. "
                "Retry later, or send smaller requests."
            )
        self.now += size


class Share:
    """One request's part; `give_back` it when the body is parsed or given up."""

    __slots__ = ("_of", "_size")

    def __init__(self, of: HeldBytes) -> None:
        self._of = of
        self._size = 0

    def take(self, size: int) -> None:
        """Raises Overloaded: all requests together would hold too much."""
        self._of._take(size)
        self._size += size

    def give_back(self) -> None:
        self._of.now -= self._size
        self._size = 0
