"""Bodies: JSON that is none, forms, plain text, and how much of each is read."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from stand_in import Client
from starlette.requests import ClientDisconnect

from deployments.http.app import create_app
from deployments.http.body import LARGE_BYTES, HeldBytes, _large_bodies, read_body, read_question
from deployments.http.dialects.base import Question
from deployments.http.dialects.classify import ClassifyDialect
from deployments.pipeline.errors import DeadlineExceeded, Overloaded, TooLarge
from deployments.pipeline.types import Options, TextInput
from deployments.settings import LimitSettings

FORM = "application/x-www-form-urlencoded"


async def read(scope: dict, receive: Any, limits: LimitSettings, held: HeldBytes) -> Question:
    return await read_question(scope, receive, ClassifyDialect(limits), limits, held)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", 'The body is empty. Send {"text": "..."}.'),
        (b" \n", "The body is empty"),
        (b'{"text": "a"', "Expecting ',' delimiter (byte 12)"),
        (b'{"text": "a",}', "(byte 1"),
        (b"{'text': 'a'}", "property name enclosed in double quotes (byte 1)"),
        ('{"text": "很好" x}'.encode(), "Expecting ',' delimiter (byte 18)"),
        (b'{"text": "a"} tail', "Extra data (byte 14)"),
        (b'{"text": "line\nbreak"}', "Invalid control character at (byte 14)"),
        (b'{"text": "a\xff"}', "not valid UTF-8 at byte 11"),
        ('{"text": "很好"}'.encode("gbk"), "not valid UTF-8 at byte 10"),
        ('{"text": "a"}'.encode("utf-16"), "not valid UTF-8 at byte 0"),
        (b'{"text": "a", "threshold": NaN}', "NaN is no JSON number"),
        (b'{"text": "a", "threshold": -Infinity}', "-Infinity is no JSON number"),
        (b'{"text": ' + b"[" * 1900, "nested too deeply"),
        (b'{"text": ' + b'{"a":' * 380, "(byte "),
        (b'{"text": "a", "top_k": ' + b"9" * 1900 + b"x", "(byte "),
    ],
)
def test_what_is_not_json_is_told_where(client, refused, body, says):
    assert says in refused(client.send(body), 400, "bad_request")


def test_a_huge_number_is_refused(service, refused):
    client = Client(create_app(service, LimitSettings()))
    body = b'{"text": "a", "top_k": ' + b"9" * 10_000 + b"}"
    assert "too many digits" in refused(client.send(body), 400, "bad_request")


def test_of_two_equal_keys_the_last_holds(client, service):
    client.send(b'{"text": "a", "text": "b"}')
    client.send(rb'{"text": ["\ud800"], "text": "c"}')
    assert service.seen == [TextInput("b"), TextInput("c")]


def test_a_byte_order_mark_is_ignored(client):
    assert client.send(b'\xef\xbb\xbf{"text": "a"}').status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "Application/JSON",
        'application/json;charset="UTF-8"',
        "application/vnd.api+json",
        None,
        "",
        FORM,
    ],
)
def test_these_types_are_read_as_json(client, content_type):
    # FORM is what `curl -d` sends when it is told nothing.
    assert client.send(b'{"text": "a"}', content_type).json()["label"] == "short"


@pytest.mark.parametrize("content_type", ["text/xml", "image/png", "json", "application/jsonl"])
def test_other_types_are_told_what_is_accepted(client, refused, content_type):
    message = refused(client.send(b"<a/>", content_type), 415, "unsupported_media_type")
    for accepted in ("application/json", FORM, "multipart/form-data", "text/plain"):
        assert accepted in message


@pytest.mark.parametrize("media_type", ["application/json", FORM, "text/plain"])
def test_another_charset_is_refused(client, refused, media_type):
    response = client.send(b"{}", f"{media_type}; charset=gbk")
    assert "Only the charset utf-8" in refused(response, 415, "unsupported_media_type")


def test_a_compressed_body_is_refused(client, refused):
    response = client.classify({"text": "a"}, headers={"content-encoding": "gzip"})
    assert "Send it uncompressed." in refused(response, 415, "unsupported_media_type")


def test_plain_text_is_the_text(client, service):
    client.send("房间很干净\n下次再来".encode(), "text/plain; charset=utf-8")
    client.send(b'{"text": 1}', "text/plain")
    assert service.seen == [TextInput("房间很干净\n下次再来"), TextInput('{"text": 1}')]


def test_plain_text_must_be_utf8_and_not_blank(client, refused):
    assert "byte 2" in refused(client.send(b"ab\xff", "text/plain"), 400, "bad_request")
    refused(client.send(b" \n", "text/plain"), 422, "empty_text")


def test_a_form_is_a_request(client, service):
    client.send(b"text=a+b%26c&top_k=2&truncation=false&raw_scores=true&threshold=0.5", FORM)
    assert service.seen == [TextInput("a b&c", None, Options(2, True, 0.5, False))]


def test_utf8_in_a_form_may_be_escaped_or_not(client, service):
    # `curl -d text=很好` does not escape.
    client.send("text=很好".encode(), FORM)
    client.send(b"text=%E5%BE%88%E5%A5%BD", FORM)
    assert service.seen == [TextInput("很好")] * 2


def test_repeated_texts_are_a_list(client, service):
    response = client.send(b"text=a&text=b&text_pair=c&text_pair=d", FORM)
    assert isinstance(response.json(), list)
    assert service.seen == [TextInput("a", "c"), TextInput("b", "d")]


def test_a_bad_text_of_a_form_fails_alone(client):
    first, undecodable, blank = client.send(b"text=a&text=%FF&text=", FORM).json()
    assert first["label"] == "short"
    assert "not valid Unicode at character 0" in undecodable["error"]["message"]
    assert blank["error"]["code"] == "empty_text"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"text=a&top_k=many", "`top_k`: expected int or null, got str"),
        (b"text=a&top_k=0", "`top_k`: expected int >= 1"),
        (b"text=a&top_k=1&top_k=2", "`top_k`: expected int or null, got array"),
        (b"text=a&truncation=on", "`truncation`: expected bool, got str"),
        (b"text=a&truncation=False", "`truncation`: expected bool, got str"),
        (b"text=a&threshold=2", "`threshold`: expected float <= 1.0"),
        (b"texts=a", "the field is `text`"),
        (b"top_k=1", "`text` is missing"),
        (b"a review with no field", "Content-Type: application/json"),
        (b"", "The form has no fields"),
    ],
)
def test_a_wrong_form_is_told_why(client, refused, body, says):
    message = refused(client.send(body, FORM), 422, "invalid_input")
    assert says in message
    assert "review" not in message


def test_too_many_form_fields(client, refused):
    message = refused(client.send(b"&".join([b"text=a"] * 17), FORM), 413, "too_large")
    assert "17 fields; the limit is 16" in message


def multipart(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    return (
        b"".join(
            b"--x\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n" % (name.encode(), data)
            for name, data in parts
        )
        + end
    )


MULTIPART = "multipart/form-data; boundary=x"


def test_no_byte_of_a_broken_form_is_logged(client, refused, caplog):
    refused(client.send(b"--test\r\n", MULTIPART), 400, "bad_request")
    refused(client.send(b"no boundary at all", MULTIPART), 400, "bad_request")
    assert caplog.records == []


def test_multipart_is_a_form(client, service):
    client.send(multipart(('"text"', "很\r\n好".encode()), ('"top_k"', b"1")), MULTIPART)
    client.send(multipart(('"text"', b"a"), ('"text"', b"b")), MULTIPART)
    assert service.seen == [TextInput("很\r\n好", None, Options(1)), TextInput("a"), TextInput("b")]


def test_an_uploaded_file_is_a_text(client, service):
    files = [("text", ("a.txt", "第一".encode())), ("text", ("b.txt", b"two", "text/plain"))]
    client.request("POST", "/classify", files=files)
    assert service.seen == [TextInput("第一"), TextInput("two")]


def test_a_bad_text_of_multipart_fails_alone(client):
    error, fine = client.send(multipart(("text", b"\xff"), ("text", b"a")), MULTIPART).json()
    assert error["error"]["code"] == "invalid_input"
    assert fine["label"] == "short"


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (multipart(("text", b"a")), "multipart/form-data", "needs a boundary"),
        (multipart(("text", b"a"), end=b""), MULTIPART, "ends before its last boundary"),
        (b"no boundary here", MULTIPART, "not valid multipart"),
        (b"", MULTIPART, "ends before its last boundary"),
        (multipart(("text", b"a")), f"multipart/form-data; boundary={'x' * 500}", "not valid"),
    ],
)
def test_broken_multipart(client, refused, body, content_type, says):
    assert says in refused(client.send(body, content_type), 400, "bad_request")


def test_multipart_fields_are_checked_and_counted(client, refused):
    refused(client.send(multipart(("texts", b"a")), MULTIPART), 422, "invalid_input")
    too_many = multipart(*[("text", b"a")] * 17)
    assert "limit is 16" in refused(client.send(too_many, MULTIPART), 413, "too_large")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"text": ["' + b"a" * LARGE_BYTES + b'", 1, "b"]}', "application/json"),
        (b"text=a&text=%FF&text=" + b"b" * LARGE_BYTES, FORM),
        (multipart(("text", b"a" * LARGE_BYTES), ("text", b"\xff"), ("text", b"b")), MULTIPART),
    ],
)
def test_a_large_body_is_understood_as_a_small_one(body, content_type, service):
    answers = Client(create_app(service, LimitSettings())).send(body, content_type).json()
    labels = [answer.get("label") or answer["error"]["code"] for answer in answers]
    assert sorted(labels) == ["invalid_input", "long", "short"]
    assert gc.isenabled()


def test_nobody_waits_for_the_parsing_of_a_large_body():
    async def ask(body: bytes) -> TextInput:
        scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
        return (await read(scope, Chunks(body), LimitSettings(), HeldBytes(10**6))).inputs[0]

    async def both() -> None:
        busy, done = threading.Event(), threading.Event()
        _large_bodies.submit(lambda: (busy.set(), done.wait(30)))
        assert await asyncio.to_thread(busy.wait, 10)
        large = asyncio.create_task(ask(b'{"text": "%s"}' % (b"a" * LARGE_BYTES)))
        assert (await ask(b'{"text": "small"}')).text == "small"
        assert not large.done()
        done.set()
        assert len((await large).text) == LARGE_BYTES

    asyncio.run(both())


class Chunks:
    """A client that sends chunk after chunk; counts those that were taken."""

    def __init__(self, *chunks: bytes, hang_up: bool = False) -> None:
        self._messages = [
            {"type": "http.request", "body": chunk, "more_body": hang_up or i < len(chunks)}
            for i, chunk in enumerate(chunks, 1)
        ]
        if hang_up:
            self._messages.append({"type": "http.disconnect"})
        self.taken = 0

    async def __call__(self) -> dict:
        self.taken += 1
        return self._messages[self.taken - 1]


def test_chunks_are_joined():
    assert asyncio.run(read_body(Chunks(b"ab", b"", b"c"), 3, HeldBytes(99).share())) == b"abc"


def test_reading_stops_where_the_limit_is_passed():
    chunks = Chunks(b"aa", b"aa", b"aa", b"aa")
    with pytest.raises(TooLarge, match="at least 4 bytes; the limit is 3"):
        asyncio.run(read_body(chunks, 3, HeldBytes(99).share()))
    assert chunks.taken == 2


def test_a_client_that_hangs_up_is_noticed():
    with pytest.raises(ClientDisconnect):
        asyncio.run(read_body(Chunks(b"a", hang_up=True), 3, HeldBytes(99).share()))


def test_bodies_that_pause_do_not_fill_the_memory():
    """Each of them within its limit; what they hold together is given back however they end."""
    held = HeldBytes(100)
    scope = {"type": "http", "headers": [(b"content-type", b"text/plain")]}
    limits = LimitSettings(body_timeout_s=0.2)

    async def pauses() -> TextInput:
        messages = [{"type": "http.request", "body": b"a" * 40, "more_body": True}]

        async def receive() -> dict:
            if not messages:
                await asyncio.sleep(10)
            return messages.pop()

        return (await read(scope, receive, limits, held)).inputs[0]

    async def main() -> list:
        ended = await asyncio.gather(*[pauses() for _ in range(3)], return_exceptions=True)
        (small,) = (await read(scope, Chunks(b"small"), limits, held)).inputs
        (two,) = (await read(scope, Chunks(b"a" * 60, b"b" * 60), limits, held)).inputs
        return [*map(type, ended), small.text, len(two.text)]

    assert asyncio.run(main()) == [DeadlineExceeded, DeadlineExceeded, Overloaded, "small", 120]
    assert held.now == 0


def test_a_large_body_is_refused_by_its_declared_length(client, refused):
    response = client.send(b" " * 2001)
    message = refused(response, 413, "too_large")
    assert message == "The body has 2001 bytes; the limit is 2000. Send several requests."


@pytest.mark.parametrize("length", ["9" * 18, "9" * 5_000])
def test_the_declared_length_is_believed_before_reading(client, refused, length):
    response = client.request(
        "POST", "/classify", content=b"{}", headers={"content-length": length}
    )
    assert "the limit is 2000" in refused(response, 413, "too_large")


@pytest.mark.parametrize("length", ["", "-1", "abc", "²"])
def test_a_senseless_length_is_not_believed(client, length):
    headers = {"content-length": length.encode()}
    response = client.request("POST", "/classify", content=b'{"text": "a"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("content_type", [b"application/json", b"text/plain"])
def test_a_body_that_trickles_in_is_given_up(content_type):
    taken = 0

    async def trickle() -> dict:
        nonlocal taken
        taken += 1
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    limits = LimitSettings(body_timeout_s=0.1)
    scope = {"type": "http", "headers": [(b"content-type", content_type)]}
    with pytest.raises(DeadlineExceeded, match=r"not complete after 0\.1 s"):
        asyncio.run(read(scope, trickle, limits, HeldBytes(10**6)))
    assert 0 < taken < 50
