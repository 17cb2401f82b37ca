"""Requests whose end two servers could see in different places, and other broken framing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.bench.client import post

GOOD = b'{"text": "a"}'
# Behind a request whose end is clear it is a second one, rightly answered, even where the first got
# a 400: one with a method or a trailer that only the replica's server refuses, for which HAProxy
# opens another connection; or `Transfer_Encoding`, a header like any other, with a body that is no
# JSON. Its id tells whose answer is whose.
HIDDEN_ID = "hidden"
HIDDEN = post(b'{"text": "hidden"}', request_id=HIDDEN_ID)
_POST = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """One connection's bytes. `statuses`: of each answer in order, where only these are right."""

    name: str
    data: bytes
    statuses: tuple[int, ...] | None = None


def shapes() -> Iterator[Shape]:
    """All shapes, each with a request behind it that another client must never meet."""
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    length = b"Content-Length: %d\r\n"
    encoding = b"Transfer-Encoding: chunked\r\n"
    yield Shape(
        "CL.TE",
        _POST + length % (len(chunked) + len(HIDDEN)) + encoding + b"\r\n" + chunked + HIDDEN,
    )
    yield Shape(
        "TE.CL",
        _POST + length % 4 + encoding + b"\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
    )
    for value in (
        b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"X: a\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding\r\n : chunked",
        b"transfer-encoding: CHUNKED", b" Transfer-Encoding: chunked",
        b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked;q=1",
        b"Transfer_Encoding: chunked", b"Transfer-Encoding: chun\x00ked",
        b"Transfer-Encoding: chunke\xe4", b"Transfer-Encoding:", b"Transfer-Encoding: chunked\x00",
    ):  # fmt: skip
        yield Shape("TE.TE", _POST + length % len(chunked) + value + b"\r\n\r\n" + chunked + HIDDEN)
    for values in ((4, 40), (40, 4), (len(GOOD), len(GOOD))):
        yield Shape(
            "two lengths", _POST + b"".join(length % v for v in values) + b"\r\n" + GOOD + HIDDEN
        )
    for value in (
        b"+13", b"-1", b"0x0d", b"13, 13", b"13 13", b"1e1", b"9" * 40, b"", b"\xb2", b"13\x00",
        b"1_3",
    ):  # fmt: skip
        yield Shape("odd length", _POST + b"Content-Length: " + value + b"\r\n\r\n" + GOOD + HIDDEN)
    good = post(GOOD)
    yield Shape("bare LF", good.replace(b"\r\n", b"\n") + HIDDEN)
    yield Shape("bare CR", good.replace(b"\r\n", b"\r") + HIDDEN)
    yield Shape("header folding", post(GOOD, extra=b"X-A: a\r\n b\r\n\tc\r\n") + HIDDEN)
    yield Shape("NUL in a header", post(GOOD, extra=b"X-A: a\x00b\r\n") + HIDDEN)
    yield Shape("header without colon", post(GOOD, extra=b"nonsense\r\n") + HIDDEN)
    yield Shape("empty header name", post(GOOD, extra=b": a\r\n") + HIDDEN)
    yield Shape("non-ASCII header name", post(GOOD, extra=b"X-\xff: a\r\n") + HIDDEN)
    for target in (
        b"http://localhost/classify", b"http://other.example/classify", b"//classify",
        b"/./classify", b"/x/../classify", b"/classify%00", b"/%63lassify",
        b"/classify?" + b"a" * 9_000, b"*", b"", b"localhost:80", b"/" + b"a" * 100_000,
        b"/\xff\xfe", b"/classify#a", b"/cl assify", b"/%ff%fe",
        b"/docs/assets/../../../settings.py", b"/docs/assets/%2e%2e/%2e%2e/app.py",
        b"/docs/assets/%00", b"/docs/assets//etc/passwd", b"/docs/assets/" + b"a" * 4_000,
    ):  # fmt: skip
        yield Shape("target", good.replace(b"/classify", target, 1) + HIDDEN)
        yield Shape("target", b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN)
    for line in (
        b"GET / HTTP/0.9", b"GET /", b"POST /classify HTTP/1.0", b"POST /classify HTTP/2.0",
        b"\x16\x03\x01", b"PRI * HTTP/2.0", b"POST  /classify HTTP/1.1", b"post /classify HTTP/1.1",
        b"\r\n\r\nPOST /classify HTTP/1.1", b"CONNECT localhost:22 HTTP/1.1", b"TRACE / HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"P\x00ST /classify HTTP/1.1", b"A" * 70_000, b"HTTP/1.1 200 OK",
        b"POST /classify HTTP/1.1 x", b"PUT /classify HTTP/1.1", b"DELETE /info HTTP/1.1",
        b"PATCH /health HTTP/1.1", b"HEAD /docs HTTP/1.1", b"POST /ready HTTP/1.1",
    ):  # fmt: skip
        yield Shape("request line", good.replace(b"POST /classify HTTP/1.1", line, 1) + HIDDEN)
    head = _POST + encoding + b"\r\n"
    yield Shape(
        "chunk extensions", head + b"%x;a=b\r\n%s\r\n0;c\r\n\r\n" % (len(GOOD), GOOD), (200,)
    )
    yield Shape(
        "one byte a chunk", head + b"".join(b"1\r\n%c\r\n" % b for b in GOOD) + b"0\r\n\r\n", (200,)
    )
    yield Shape("trailers", head + chunked[:-2] + b"X-A: a\r\nContent-Length: 3\r\n\r\n" + HIDDEN)
    for size in (
        b"ffffffffffffffffff", b"-1", b"+d", b"0x0d", b" d", b"d ", b"", b"g", b"7fffffffffffffff",
        b"d" + b";a" * 40_000, b"0" * 40_000 + b"d", b"d\x00", b"d\n",
    ):  # fmt: skip
        yield Shape("chunk size", head + size + b"\r\n" + GOOD + b"\r\n0\r\n\r\n" + HIDDEN)
    yield Shape("chunk too short", head + b"2\r\n" + GOOD + b"\r\n0\r\n\r\n" + HIDDEN)
    yield Shape("chunk too long", head + b"40\r\n" + GOOD + b"\r\n0\r\n\r\n" + HIDDEN)
    yield Shape("chunks without line ends", head + b"%x\n%s\n0\n\n" % (len(GOOD), GOOD) + HIDDEN)
    yield Shape("expect", post(GOOD, extra=b"Expect: 100-continue\r\n"), (200,))
    yield Shape("expect what nobody knows", post(GOOD, extra=b"Expect: a-miracle\r\n"))
    yield Shape("early close", good[:-5])
    yield Shape("trailing garbage", good + b"\x00\xff garbage\r\n\r\n")
    yield Shape(
        "upgrade",
        post(
            GOOD,
            extra=b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        ),
    )
    yield Shape(  # 403 without a body: how an ASGI server says that nobody takes them
        "websocket",
        b"GET /classify HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    yield Shape("no host", good.replace(b"Host: localhost\r\n", b""))
    yield Shape("two hosts", post(GOOD, extra=b"Host: other.example\r\n"))
    yield Shape(
        "hop-by-hop", post(GOOD, extra=b"Connection: close, Content-Length, X-Request-ID\r\n")
    )
