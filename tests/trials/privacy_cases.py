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

from deployments.bench.client import BrokenAnswer

from . import privacy_faults as faulty
from .canary import WORD_CHARS, Canaries
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
    "explain.enabled=true",
    "explain.max_s=1.0",
)
FORM, JSON = "application/x-www-form-urlencoded", "application/json"

Send = Callable[[str], object]
ANSWER = ("answer",)


@dataclass(frozen=True, slots=True)
class Case:
    """send: sends a text, its canary, and says what came back; expected: one of these.

    shown_in: part of the name of places where Serve shows it, whatever we do; see docs/privacy.md.
    """

    name: str
    expected: Sequence[object]
    send: Send
    shown_in: str = ""


class Http:
    """Requests to one service. Every method returns the status, 0 where there was none."""

    def __init__(self, url: str) -> None:
        self.url = url
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


def word(text: str) -> str:
    """The part of a canary that is letters and digits."""
    return text[:WORD_CHARS]


def accepted(http: Http) -> Iterator[Case]:
    """Texts that are classified."""
    ok = (200,)
    yield Case("JSON", ok, lambda t: http.json({"text": t}))
    yield Case("JSON in \\u escapes", ok, lambda t: http.json({"text": t}, ascii_only=True))
    yield Case("a list", ok, lambda t: http.json({"text": [t] * 3}))
    yield Case("pairs", ok, lambda t: http.json({"text": [t], "text_pair": [t]}))
    yield Case("options", ok, lambda t: http.json({"text": t, "raw_scores": True}))
    yield Case("cut to length", ok, lambda t: http.json({"text": t + "好" * 900}))
    # The first waits for the Explainer, in vain: it starts for longer than a request may take.
    explained = (200, 408, 503)
    yield Case("explained", explained, lambda t: http.json({"text": t, "explain": True}))
    yield Case(
        "POST /explain",
        explained,
        lambda t: http.post(json.dumps({"text": t}).encode(), path="/explain"),
    )
    yield Case("a form", ok, lambda t: http.post(f"text={quote(t)}".encode(), FORM))
    yield Case("a multipart form", ok, lambda t: http.multipart(t))
    yield Case("an uploaded file", ok, lambda t: http.multipart(t, filename=t))
    yield Case("plain text", ok, lambda t: http.post(t.encode(), "text/plain"))
    yield Case("beside bad ones", ok, lambda t: http.json({"text": [t, "", {t: 1}]}))
    yield Case("half a surrogate", ok, lambda t: http.json({"text": [t + "\ud800"]}, True))
    yield Case(
        "in headers",
        ok,
        lambda t: http.json(
            {"text": "好"},
            user_agent=t.encode(),
            referer=f"http://{quote(t)}",
            cookie=f"a={quote(t)}",
            authorization=f"Bearer {quote(t)}",
            x_note=t.encode(),
            x_request_timeout_seconds=quote(t),
            x_session_id=quote(t),
            traceparent=quote(t),
        ),
    )
    yield Case(
        "in the query of a POST",
        ok,
        lambda t: http.post('{"text": "好"}'.encode(), path=f"/classify?text={quote(t)}"),
    )


def refused(http: Http) -> Iterator[Case]:
    """Texts that are refused before the model."""

    def half(t: str) -> bytes:
        return f'{{"text": "{t}'.encode()

    yield Case("no JSON", (400,), lambda t: http.post(half(t)))
    yield Case("no UTF-8", (400,), lambda t: http.post(half(t) + b'\xff"}'))
    yield Case(
        "no UTF-8, as plain text", (400,), lambda t: http.post(t.encode() + b"\xff", "text/plain")
    )
    yield Case("unknown field", (422,), lambda t: http.json({"text": "好", t: 1}))
    yield Case("unknown field in letters", (422,), lambda t: http.json({"text": "好", word(t): 1}))
    yield Case(
        "unknown field of a form",
        (422,),
        lambda t: http.post(f"text=a&{quote(t)}=1".encode(), FORM),
    )
    yield Case("an object for a text", (422,), lambda t: http.json({"text": {t: t}}))
    yield Case("a text for an option", (422,), lambda t: http.json({"text": "好", "top_k": t}))
    yield Case("a text for JSON", (422,), lambda t: http.json(t))
    yield Case("a form without fields", (422,), lambda t: http.post(t.encode(), FORM))
    yield Case("multipart, unknown field", (422,), lambda t: http.multipart("好", name=word(t)))
    yield Case(
        "multipart, no end",
        (400,),
        lambda t: http.post(t.encode(), "multipart/form-data; boundary=x"),
    )
    yield Case("too long", (413,), lambda t: http.json({"text": t + "好" * MAX_CHARS}))
    yield Case(
        "refused to cut", (413,), lambda t: http.json({"text": t + "好" * 900, "truncation": False})
    )
    yield Case("too many texts", (413,), lambda t: http.json({"text": [t] * (MAX_TEXTS + 1)}))
    yield Case("body too large", (413,), lambda t: http.post(t.encode() * 4_000))
    yield Case("another type", (415,), lambda t: http.post(t.encode(), f"x/{word(t)}"))
    yield Case("compressed", (415,), lambda t: http.json({"text": t}, content_encoding="br"))
    yield Case(
        "GET with a query",
        (405,),
        lambda t: http.request("GET", f"/classify?text={quote(t)}", None, {}),
    )
    yield Case("in the path", (404,), lambda t: http.request("GET", f"/{quote(t)}", None, {}))
    yield Case(
        "as the method",
        (400, 404, 405),
        lambda t: http.request(word(t).upper(), "/classify", None, {}),
        shown_in="metrics",
    )
    yield Case(
        "in a request line that is none",
        (400, 0),
        lambda t: http.raw(f"GET /classify?text={t} HTTP/1.1\r\nHost: x\r\n\r\n".encode()),
    )
    yield Case(
        "in a header that is none",
        (400, 0),
        lambda t: http.raw(f"POST /classify HTTP/1.1\r\nHost: x\r\n{t}\r\n\r\n".encode()),
    )
    yield Case(
        "a request id in Chinese",
        (200,),
        lambda t: http.json({"text": "好"}, x_request_id=t.encode()),
        shown_in="/spans/",
    )
    yield Case(
        "as a model's id",
        (200,),
        lambda t: http.json({"text": "好"}, serve_multiplexed_model_id=quote(t)),
        shown_in="/spans/",
    )


def failing(http: Http, canaries: Canaries) -> Iterator[Case]:
    """Texts with which something breaks, or nobody waits for."""

    def slow(t: str) -> bytes:
        value = {"text": canaries.of_tokens(t, faulty.SLOW_TOKENS)}
        return json.dumps(value, ensure_ascii=False).encode()

    def head(length: int) -> bytes:
        return f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()

    def hang_up(t: str, share: float) -> int:
        body = slow(t)
        return http.raw(head(len(body)) + body[: int(len(body) * share)], wait=False)

    def flood(t: str) -> int:
        """The highest status of so many at once that some must be refused."""
        statuses: list[int] = []
        first = threading.Thread(target=lambda: statuses.append(http.post(slow(t))))
        many = [
            threading.Thread(target=lambda: statuses.append(http.json({"text": [t] * MAX_TEXTS})))
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
        lambda t: http.json({"text": canaries.of_tokens(t, faulty.FAILING_TOKENS)}),
    )
    yield Case(
        "the engine raises, in a list",
        (200,),
        lambda t: http.json({"text": [canaries.of_tokens(t, faulty.FAILING_TOKENS), t]}),
    )
    yield Case(
        "the postprocessor raises",
        (500,),
        lambda t: http.json({"text": t, "top_k": faulty.FAILING_TOP_K}),
    )
    yield Case("the ingress raises", (500,), lambda t: http.json({"text": t + faulty.RAISE}))
    yield Case(
        "the ingress raises, a Chinese request id",
        (500,),
        lambda t: http.json({"text": t + faulty.RAISE}, x_request_id=t.encode()),
        shown_in="/spans/",
    )
    yield Case("the tokenizer panics", (500,), lambda t: http.json({"text": t + faulty.PANIC}))
    yield Case("a task fails alone", (200,), lambda t: http.json({"text": t + faulty.FORGET}))
    yield Case("past its deadline", (408,), lambda t: http.post(slow(t)))
    yield Case("the queue is full", (429,), flood)
    yield Case("the client leaves, half sent", (0,), lambda t: hang_up(t, 0.5))
    yield Case("the client leaves before the answer", (0,), lambda t: hang_up(t, 1.0))


@dataclass(frozen=True, slots=True)
class HandleCase:
    """args, kwargs: of a text, its canary; expected: `answer`, or the error's type.

    shown_in: as of a `Case`.
    """

    name: str
    expected: Sequence[str]
    args: Callable[[str], list[Any]]
    kwargs: Callable[[str], dict[str, Any]] = field(default=lambda _: {})
    method: str = "classify"
    shown_in: str = ""

    def question(self, text: str) -> dict[str, Any]:
        return {"method": self.method, "args": self.args(text), "kwargs": self.kwargs(text)}


def handle_cases(canaries: Canaries) -> list[HandleCase]:
    """One call each; what Serve and Ray make of a call that fails is not in our hands."""
    long = MAX_CHARS - 100  # with MAX_TEXTS of them a message that goes by the object store

    def error(name: str) -> tuple[str, str]:
        return name, f"RayTaskError({name})"

    return [
        HandleCase("a text", ANSWER, lambda t: [t]),
        HandleCase("a list", ANSWER, lambda t: [[t] * 3]),
        HandleCase("a list of 110 kB", ANSWER, lambda t: [[t + "好" * long] * MAX_TEXTS]),
        HandleCase("a bad one", ANSWER, lambda t: [[t, {t: 1}]]),
        HandleCase("an object", error("InvalidInput"), lambda t: [{t: t}]),
        HandleCase(
            "a text for an option", error("InvalidInput"), lambda t: ["好"], lambda t: {"top_k": t}
        ),
        HandleCase(
            "a text for a time", error("InvalidInput"), lambda t: ["好"], lambda t: {"timeout_s": t}
        ),
        HandleCase("an unknown option", error("InvalidInput"), lambda t: ["好"], lambda t: {t: 1}),
        HandleCase(
            "an unknown option in letters",
            error("InvalidInput"),
            lambda t: ["好"],
            lambda t: {word(t): 1},
            shown_in="/spans/",  # the error names an option that could be one
        ),
        HandleCase(
            "no text, an unknown option", error("TypeError"), lambda t: [], lambda t: {t: 1}
        ),
        HandleCase("too many arguments", error("TypeError"), lambda t: [t, t]),
        HandleCase("too many texts", error("TooLarge"), lambda t: [[t] * (MAX_TEXTS + 1)]),
        HandleCase("too long", error("TextTooLong"), lambda t: [t + "好" * MAX_CHARS]),
        HandleCase(
            "refused to cut",
            error("TextTooLong"),
            lambda t: [t + "好" * 900],
            lambda t: {"truncation": False},
        ),
        HandleCase(
            "the engine raises",
            error("PredictionFailed"),
            lambda t: [canaries.of_tokens(t, faulty.FAILING_TOKENS)],
        ),
        HandleCase(
            "the postprocessor raises",
            error("ServiceError"),
            lambda t: [t],
            lambda t: {"top_k": faulty.FAILING_TOP_K},
        ),
        HandleCase("the ingress raises", error("ServiceError"), lambda t: [t + faulty.RAISE]),
        HandleCase("the tokenizer panics", error("ServiceError"), lambda t: [t + faulty.PANIC]),
        HandleCase(
            "past its deadline",
            error("DeadlineExceeded"),
            lambda t: [canaries.of_tokens(t, faulty.SLOW_TOKENS)],
        ),
        HandleCase("the ASGI entry", error("TypeError"), lambda t: [t], method="__call__"),
        HandleCase("another method", error("TypeError"), lambda t: [t, t], method="info"),
    ]
