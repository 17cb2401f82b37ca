"""Bad bodies: the same ones at every run."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=x"
PLAIN = b"text/plain"
TYPES = (JSON, FORM, MULTIPART, PLAIN)
SEED = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One request. statuses: those that are right, if only some are; else any below 500."""

    group: str
    body: bytes
    content_type: bytes | None = JSON
    statuses: tuple[int, ...] = ()
    extra: bytes = b""


NASTY_UNITS = {
    "combining marks": "e" + "\u0301" * 7,
    "one word": "a",
    "Hangul syllables": "한",
    "Hangul jamo": "\u1112\u1161\u11ab",
    "one character that becomes 18": "ﷺ",
    "emoji joined by zero-width": "👨\u200d👩\u200d👧",
    "Chinese": "很好不错",
    "unknown": "\U00013000",
    "spaces": " a",
    "punctuation": "!",
    "zero-width and bidi": "\u200b\u202e\u2066a\u2069\u200f",
    "controls": "\x01\x7fa",
    "marks out of order": "a\u0315\u0300\u05ae",
    "mathematical letters": "𝔸",
}
"""Kind → what a text of it is a repetition of."""

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 1e308, -0.0, 0.5, 1.5, "", " ", "a", "null",
    [], [[]], [None], ["a"], ["a", 1, None, {}, []], {}, {"a": "b"}, {"text": "a"}, "好" * 300,
)  # fmt: skip
_FIELDS = ("text", "text_pair", "top_k", "truncation", "raw_scores", "threshold", "other")


def types() -> Iterator[Case]:
    """Every field with every kind of value, beside a good text, in JSON and as a form."""
    for field, value in itertools.product(_FIELDS, _VALUES):
        yield _json("types", {"text": "很好", field: value})
        yield _json("types", {"text": ["很好", "差"], field: value})
        yield Case("types", f"text=a&{field}={json.dumps(value)}".encode(), FORM)
    for value in _VALUES:
        yield _json("types", value)
    for first, second in itertools.product(_VALUES, _VALUES):
        yield _json("types", {"text": first, "text_pair": second})


def encodings() -> Iterator[Case]:
    """What is no text, or hardly one."""
    raw = [
        b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe5\xa5",
        b"\x80" * 9, b"\x00",
        b"\xef\xbb\xbf", b"\xff\xfe", "很好".encode("gbk"), "很好".encode("utf-16"), b"a\x00b",
        "\u202eabc\u2066".encode(), "\u200b\u200c\u200d\ufeff".encode(),
        "👩‍👩‍👧‍👦🏳️‍🌈".encode(), b"\x1b[2J",
        "\ufffe\uffff\U0010ffff".encode(), b"\r\n\r\n", b"%00%ff%", b"\\u0000", b"\\ud800",
        b"\\ud83d\\ude00", b"\\udc00\\ud800", b"\\x41", b'","text":"b', b"</script>", b"{{7*7}}",
        b"'; DROP TABLE texts; --", b"${jndi:x}",
    ]  # fmt: skip
    part = b"--x\r\nContent-Disposition: form-data; name="
    for data, kind in itertools.product(raw, TYPES):
        for body in (
            data,
            b'{"text": "' + data + b'"}',
            b'{"text": ["a", "' + data + b'"]}',
            b'{"' + data + b'": "a"}',
            b"text=" + data,
            b"text=a&" + data + b"=b",
            part + b'"text"\r\n\r\n' + data + b"\r\n--x--",
            part + b'"' + data + b'"\r\n\r\na\r\n--x--',
        ):
            yield Case("encodings", body, kind)
    for body in (
        b'{"text": "a", "text": "b"}', b'{"text": "a", "threshold": NaN}', b"NaN", b"Infinity",
        b'{"text": "a", "threshold": -Infinity}', b'{"text": "a", "top_k": 1e999}', b"{} {}", b"[",
        b'{"text": "a", "top_k": 0x10}', b'{"text": "a", "top_k": 01}', b'{"text": "a" /* no */}',
    ):  # fmt: skip
        yield Case("encodings", body)


def sizes(quick: bool) -> Iterator[Case]:
    """Much of something."""
    too_large, words = (413,), 100_000
    yield Case("sizes", b'{"text": "' + b"a" * 10_000_000 + b'"}', statuses=too_large)
    yield Case("sizes", b" " * 10_000_000, PLAIN, too_large)
    yield _json("sizes", {"text": ["a"] * words}, too_large)
    yield Case("sizes", b"&".join([b"text=a"] * words), FORM, too_large)
    yield _json("sizes", {"text": "好" * 600_000}, too_large)
    yield _json("sizes", {"text": "a" * 1_000_000}, too_large)
    yield _json("sizes", {"text": ""}, (422,))
    yield _json("sizes", {"text": [" \t\n\u3000"] * 1_000}, (200,))
    for depth in (100, 10_000, 900_000):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            half = opening * min(depth, 1_900_000 // len(opening))
            yield Case("sizes", half, statuses=(400,))
            yield Case("sizes", b'{"text": ' + half, statuses=(400,))
            yield Case("sizes", half[:900_000] + b"1" + closing * depth, statuses=(400, 422))
    yield Case("sizes", b'{"text": "a", "top_k": ' + b"9" * 1_000_000 + b"}", statuses=(400,))
    yield Case("sizes", b'{"' + b"k" * 1_900_000 + b'": 1}', statuses=(422,))
    yield _json("sizes", {f"key{i}": i for i in range(100_000)}, (422,))
    yield _json("sizes", {"text": "a" * 100_000, "truncation": True}, (200,))
    for unit in itertools.islice(NASTY_UNITS.values(), 2 if quick else None):
        text = (unit * 20_000)[:20_000]
        yield _json("sizes", {"text": text, "truncation": True}, (200, 422))
        yield _json("sizes", {"text": text, "text_pair": text, "truncation": True}, (200, 422))


def headers() -> Iterator[Case]:
    """Header lines that nobody sends, with a body that is right. HAProxy may refuse them.

    A caller's time limit of 1e-9 s gets 408, or 429 where other texts wait before its own.
    """
    good = b'{"text": "a"}'
    names = (
        b"X-Request-ID", b"Accept", b"Cookie", b"Content-Encoding", b"X-Request-Timeout-Seconds",
        b"X-Forwarded-For", b"Authorization", b"serve_multiplexed_model_id", b"X-Session-ID",
        b"X-Request-Disconnect-Disabled", b"Traceparent", b"Upgrade", b"Range", b"TE", b"Host",
    )  # fmt: skip
    values = (
        b"", b" ", b"\xff", "很好".encode(), b"a" * 5_000, b"a" * 40_000, b"\x00", b"\x7f", b"\t",
        b"-1", b"nan", b"1e-9", b"0", b"gzip", b"a, b", b'"', b"%0d%0a", b"h2c", b"websocket",
    )  # fmt: skip
    for name, value in itertools.product(names, values):
        yield Case("headers", good, extra=name + b": " + value + b"\r\n")
    for count in (10, 90, 200, 5_000):
        yield Case("headers", good, extra=b"".join(b"X-%d: a\r\n" % i for i in range(count)))
    for kind in (
        b"", b";", b"json", b"a/b/c", b"application/json; charset=gbk", b"\xff", b"a" * 9_000,
        b"multipart/form-data", b'multipart/form-data; boundary="', b"text/plain;" * 500,
    ):  # fmt: skip
        yield Case("headers", good, kind)


def generated(count: int, seed: int = SEED) -> Iterator[Case]:
    """Good bodies with some bytes changed, cut, doubled or moved."""
    rng = random.Random(seed)
    good = [case for case in itertools.chain(types(), encodings()) if 10 < len(case.body) < 400]
    for _ in range(count):
        case = rng.choice(good)
        body = bytearray(case.body)
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            at, end = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
            match rng.randrange(5):
                case 0:
                    body[at : at + 1] = bytes([rng.randrange(256)])
                case 1:
                    body[at:at] = rng.choice(
                        (b'"', b"{", b"[", b"\\u", b",", b"&", b"\r\n--x", b"\x00")
                    )
                case 2:
                    del body[at:end]
                case 3:
                    body[at:at] = body[at:end][:200]
                case _:
                    body[at:at] = chr(rng.choice((0x301, 0x202E, 0x1F600, 0xFDFA, 0x4E00))).encode()
        kind = case.content_type if rng.random() < 0.8 else rng.choice(TYPES)
        yield Case("generated", bytes(body), kind)


def _json(group: str, value: object, statuses: tuple[int, ...] = ()) -> Case:
    return Case(group, json.dumps(value).encode(), statuses=statuses)
