"""Ways in for a text, good and bad: one canary each, and what says that it got there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from scripts.bench.client import BrokenAnswer

from . import privacy_faults as faulty
from .canary import Canaries
from .raw_http import Connection

TIMEOUT_S = 60
MAX_BODY_BYTES, MAX_TEXTS, MAX_CHARS, MAX_PENDING = 100_000, 20, 2_000, 60
REQUEST_TIMEOUT_S = 2.0
SETTINGS = (
    f"limits.max_body_bytes={MAX_BODY_BYTES}",
    f"limits.max_batch_texts={MAX_TEXTS}",
    f"limits.max_text_chars={MAX_CHARS}",
    f"limits.max_pending_texts={MAX_PENDING}",
    f"limits.request_timeout_s={REQUEST_TIMEOUT_S}",
)
FORM, JSON = "application/x-www-form-urlencoded", "application/json"

Send = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Case:
    """send: sends the canary of a case's number and says what came back; expected: one of these.

    shown_in: part of the name of places where Serve shows it, whatever we do; see docs/privacy.md.
    """

    name: str
    expected: Sequence[object]
    send: Send
    shown_in: str = ""


class Http:
    """Requests to one service. Every method returns the status, 0 where there was none."""

    def __init__(self, url: str, canaries: Canaries) -> None:
        self.url, self._canaries = url, canaries
        self._port = urlsplit(url).port or 0

    def post(
        self, body: bytes, content_type: str = JSON, path: str = "/classify", **headers: Any
    ) -> int:
        headers = {
            "content-type": content_type,
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return self.request("POST", path, body, headers)

    def json(self, value: Any, ascii_only: bool = False, **headers: Any) -> int:
        return self.post(json.dumps(value, ensure_ascii=ascii_only).encode(), **headers)

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, Any]) -> int:
        try:
            return requests.request(
                method, self.url + path, data=body, headers=headers, timeout=TIMEOUT_S
            ).status_code
        except requests.ConnectionError:
            return 0

    def raw(self, data: bytes, wait: bool = True) -> int:
        """Sends bytes as they are, and hangs up without an answer where nobody waits for it."""
        with Connection(self._port, TIMEOUT_S) as connection:
            connection.send(data)
            if not wait:
                connection.reset()
                return 0
            with suppress(OSError, BrokenAnswer):
                answer = connection.receive(TIMEOUT_S)
                return answer.status if answer else 0
        return 0

    def multipart(self, text: str, name: str = "text", filename: str | None = None) -> int:
        files = {name: (filename, text)}
        try:
            answer = requests.post(f"{self.url}/classify", files=files, timeout=TIMEOUT_S)
        except requests.ConnectionError:
            return 0
        return answer.status_code


def accepted(http: Http, canaries: Canaries) -> Iterator[Case]:
    """Texts that are classified."""
    text = canaries.text
    ok = (200,)
    yield Case("JSON", ok, lambda n: http.json({"text": text(n)}))
    yield Case("JSON in \\u escapes", ok, lambda n: http.json({"text": text(n)}, ascii_only=True))
    yield Case("a list", ok, lambda n: http.json({"text": [text(n)] * 3}))
    yield Case("pairs", ok, lambda n: http.json({"text": [text(n)], "text_pair": [text(n)]}))
    yield Case("options", ok, lambda n: http.json({"text": text(n), "raw_scores": True}))
    yield Case("cut to length", ok, lambda n: http.json({"text": text(n, "好" * 900)}))
    yield Case("a form", ok, lambda n: http.post(f"text={quote(text(n))}".encode(), FORM))
    yield Case("a multipart form", ok, lambda n: http.multipart(text(n)))
    yield Case("an uploaded file", ok, lambda n: http.multipart(text(n), filename=text(n)))
    yield Case("plain text", ok, lambda n: http.post(text(n).encode(), "text/plain"))
    yield Case("beside bad ones", ok, lambda n: http.json({"text": [text(n), "", {text(n): 1}]}))
    yield Case("half a surrogate", ok, lambda n: http.json({"text": [text(n) + "\ud800"]}, True))
    yield Case(
        "in headers",
        ok,
        lambda n: http.json(
            {"text": "好"},
            user_agent=text(n).encode(),
            referer=f"http://{quote(text(n))}",
            cookie=f"a={quote(text(n))}",
            authorization=f"Bearer {quote(text(n))}",
            x_note=text(n).encode(),
            x_request_timeout_seconds=quote(text(n)),
            x_session_id=quote(text(n)),
            traceparent=quote(text(n)),
        ),
    )
    yield Case(
        "in the query of a POST",
        ok,
        lambda n: http.post('{"text": "好"}'.encode(), path=f"/classify?text={quote(text(n))}"),
    )


def refused(http: Http, canaries: Canaries) -> Iterator[Case]:
    """Texts that are refused before the model."""
    text = canaries.text

    def word(n: int) -> str:
        return f"{canaries.latin}{n:03d}"

    def half(n: int) -> bytes:
        return f'{{"text": "{text(n)}'.encode()

    yield Case("no JSON", (400,), lambda n: http.post(half(n)))
    yield Case("no UTF-8", (400,), lambda n: http.post(half(n) + b'\xff"}'))
    yield Case(
        "no UTF-8, as plain text",
        (400,),
        lambda n: http.post(text(n).encode() + b"\xff", "text/plain"),
    )
    yield Case("unknown field", (422,), lambda n: http.json({"text": "好", text(n): 1}))
    yield Case("unknown field in letters", (422,), lambda n: http.json({"text": "好", word(n): 1}))
    yield Case(
        "unknown field of a form",
        (422,),
        lambda n: http.post(f"text=a&{quote(text(n))}=1".encode(), FORM),
    )
    yield Case("an object for a text", (422,), lambda n: http.json({"text": {text(n): text(n)}}))
    yield Case(
        "a text for an option", (422,), lambda n: http.json({"text": "好", "top_k": text(n)})
    )
    yield Case("a text for JSON", (422,), lambda n: http.json(text(n)))
    yield Case("a form without fields", (422,), lambda n: http.post(text(n).encode(), FORM))
    yield Case("multipart, unknown field", (422,), lambda n: http.multipart("好", name=word(n)))
    yield Case(
        "multipart, no end",
        (400,),
        lambda n: http.post(text(n).encode(), "multipart/form-data; boundary=x"),
    )
    yield Case("too long", (413,), lambda n: http.json({"text": text(n, "好" * MAX_CHARS)}))
    yield Case(
        "refused to cut",
        (413,),
        lambda n: http.json({"text": text(n, "好" * 900), "truncation": False}),
    )
    yield Case("too many texts", (413,), lambda n: http.json({"text": [text(n)] * (MAX_TEXTS + 1)}))
    yield Case("body too large", (413,), lambda n: http.post(text(n).encode() * 4_000))
    yield Case("another type", (415,), lambda n: http.post(text(n).encode(), f"x/{word(n)}"))
    yield Case("compressed", (415,), lambda n: http.json({"text": text(n)}, content_encoding="br"))
    yield Case(
        "GET with a query",
        (405,),
        lambda n: http.request("GET", f"/classify?text={quote(text(n))}", None, {}),
    )
    yield Case("in the path", (404,), lambda n: http.request("GET", f"/{quote(text(n))}", None, {}))
    yield Case(
        "as the method",
        (400, 404, 405),
        lambda n: http.request(word(n).upper(), "/classify", None, {}),
        shown_in="metrics",
    )
    yield Case(
        "in a request line that is none",
        (400, 0),
        lambda n: http.raw(f"GET /classify?text={text(n)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()),
    )
    yield Case(
        "in a header that is none",
        (400, 0),
        lambda n: http.raw(f"POST /classify HTTP/1.1\r\nHost: x\r\n{text(n)}\r\n\r\n".encode()),
    )
    yield Case(
        "a request id in Chinese",
        (200,),
        lambda n: http.json({"text": "好"}, x_request_id=text(n).encode()),
        shown_in="/spans/",
    )
    yield Case(
        "as a model's id",
        (200,),
        lambda n: http.json({"text": "好"}, serve_multiplexed_model_id=quote(text(n))),
        shown_in="/spans/",
    )


def failing(http: Http, canaries: Canaries) -> Iterator[Case]:
    """Texts with which something breaks, or nobody waits for."""
    text = canaries.text

    def slow(n: int) -> bytes:
        value = {"text": canaries.of_tokens(n, faulty.SLOW_TOKENS)}
        return json.dumps(value, ensure_ascii=False).encode()

    def head(length: int) -> bytes:
        return f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()

    def hang_up(n: int, share: float) -> int:
        body = slow(n)
        return http.raw(head(len(body)) + body[: int(len(body) * share)], wait=False)

    def flood(n: int) -> int:
        """The highest status of so many at once that some must be refused."""
        statuses: list[int] = []
        first = threading.Thread(target=lambda: statuses.append(http.post(slow(n))))
        many = [
            threading.Thread(
                target=lambda: statuses.append(http.json({"text": [text(n)] * MAX_TEXTS}))
            )
            for _ in range(8)
        ]
        for thread in (first, *many):
            thread.start()
        for thread in (first, *many):
            thread.join()
        return 429 if 429 in statuses else max(statuses)

    yield Case(
        "the engine raises",
        (500,),
        lambda n: http.json({"text": canaries.of_tokens(n, faulty.FAILING_TOKENS)}),
    )
    yield Case(
        "the engine raises, in a list",
        (200,),
        lambda n: http.json({"text": [canaries.of_tokens(n, faulty.FAILING_TOKENS), text(n)]}),
    )
    yield Case(
        "the postprocessor raises",
        (500,),
        lambda n: http.json({"text": text(n), "top_k": faulty.FAILING_TOP_K}),
    )
    yield Case("the ingress raises", (500,), lambda n: http.json({"text": text(n, faulty.RAISE)}))
    yield Case(
        "the ingress raises, a Chinese request id",
        (500,),
        lambda n: http.json({"text": text(n, faulty.RAISE)}, x_request_id=text(n).encode()),
        shown_in="/spans/",
    )
    yield Case("the tokenizer panics", (500,), lambda n: http.json({"text": text(n, faulty.PANIC)}))
    yield Case("a task fails alone", (200,), lambda n: http.json({"text": text(n, faulty.FORGET)}))
    yield Case("past its deadline", (408,), lambda n: http.post(slow(n)))
    yield Case("the queue is full", (429,), flood)
    yield Case("the client leaves, half sent", (0,), lambda n: hang_up(n, 0.5))
    yield Case("the client leaves before the answer", (0,), lambda n: hang_up(n, 1.0))


ANSWER = ("answer",)


@dataclass(frozen=True, slots=True)
class HandleCase:
    """args, kwargs: of the number of a case; expected: `answer`, or the error's type.

    shown_in: as of a `Case`.
    """

    name: str
    expected: Sequence[str]
    args: Callable[[int], list[Any]]
    kwargs: Callable[[int], dict[str, Any]] = field(default=lambda _: {})
    method: str = "classify"
    shown_in: str = ""

    def question(self, number: int) -> dict[str, Any]:
        return {"method": self.method, "args": self.args(number), "kwargs": self.kwargs(number)}


def handle_cases(canaries: Canaries) -> list[HandleCase]:
    """One call each; what Serve and Ray make of a call that fails is not in our hands."""
    text = canaries.text
    long = MAX_CHARS - 100  # with MAX_TEXTS of them a message that goes by the object store

    def error(name: str) -> tuple[str, str]:
        return name, f"RayTaskError({name})"

    return [
        HandleCase("a text", ANSWER, lambda n: [text(n)]),
        HandleCase("a list", ANSWER, lambda n: [[text(n)] * 3]),
        HandleCase("a list of 110 kB", ANSWER, lambda n: [[text(n, "好" * long)] * MAX_TEXTS]),
        HandleCase("a bad one", ANSWER, lambda n: [[text(n), {text(n): 1}]]),
        HandleCase("an object", error("InvalidInput"), lambda n: [{text(n): text(n)}]),
        HandleCase(
            "a text for an option",
            error("InvalidInput"),
            lambda n: ["好"],
            lambda n: {"top_k": text(n)},
        ),
        HandleCase(
            "a text for a time",
            error("InvalidInput"),
            lambda n: ["好"],
            lambda n: {"timeout_s": text(n)},
        ),
        HandleCase(
            "an unknown option", error("InvalidInput"), lambda n: ["好"], lambda n: {text(n): 1}
        ),
        HandleCase(
            "an unknown option in letters",
            error("InvalidInput"),
            lambda n: ["好"],
            lambda n: {f"{canaries.latin}{n:03d}": 1},
            shown_in="/spans/",  # the error names an option that could be one
        ),
        HandleCase(
            "no text, an unknown option", error("TypeError"), lambda n: [], lambda n: {text(n): 1}
        ),
        HandleCase("too many arguments", error("TypeError"), lambda n: [text(n), text(n)]),
        HandleCase("too many texts", error("TooLarge"), lambda n: [[text(n)] * (MAX_TEXTS + 1)]),
        HandleCase("too long", error("TextTooLong"), lambda n: [text(n, "好" * MAX_CHARS)]),
        HandleCase(
            "refused to cut",
            error("TextTooLong"),
            lambda n: [text(n, "好" * 900)],
            lambda n: {"truncation": False},
        ),
        HandleCase(
            "the engine raises",
            error("PredictionFailed"),
            lambda n: [canaries.of_tokens(n, faulty.FAILING_TOKENS)],
        ),
        HandleCase(
            "the postprocessor raises",
            error("ServiceError"),
            lambda n: [text(n)],
            lambda n: {"top_k": faulty.FAILING_TOP_K},
        ),
        HandleCase("the ingress raises", error("ServiceError"), lambda n: [text(n, faulty.RAISE)]),
        HandleCase(
            "the tokenizer panics", error("ServiceError"), lambda n: [text(n, faulty.PANIC)]
        ),
        HandleCase(
            "past its deadline",
            error("DeadlineExceeded"),
            lambda n: [canaries.of_tokens(n, faulty.SLOW_TOKENS)],
        ),
        HandleCase("the ASGI entry", error("TypeError"), lambda n: [text(n)], method="__call__"),
        HandleCase(
            "another method", error("TypeError"), lambda n: [text(n), text(n)], method="info"
        ),
    ]
