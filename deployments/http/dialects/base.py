"""The seam that a way of asking over HTTP hangs on: its paths, its JSON in and out, its errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec
from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.http.media_types import JSON
from deployments.http.service import ClassifyService
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.explaining import Explain
from deployments.pipeline.types import Answer, Options, TextInput

T = TypeVar("T")

Json = dict[str, Any]

SPEAKER = "rayclassify.dialect"
"""Key of the ASGI scope under which `parse` puts another dialect, where the body is in its words:
that one renders the answer, or the error."""

ALL_LABELS = 1_000_000
"""As `Options.top_k`: every label, also where the service's own default shows fewer."""

Open = Literal["never", "always", "if docs_public"]
"""Who needs no key."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body, as it came. media_type: one of body.ACCEPTED, or "" where it names none.

    header: all of Content-Type, parameters too.
    """

    content: bytes
    media_type: str
    header: str

    def __repr__(self) -> str:
        return "Body(...)"  # a repr may end up in a log


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks.

    inputs: its texts in order, or why one can't be classified. timeout_s: None leaves it to the
    service. single: one text, whose error is the whole answer; in a list it stands in its place.
    memo: what `render` needs to know of the request. explain: how the answers are to be explained,
    if at all. ask: gets the answers in place of classifying;
    `inputs` then only says how many texts the caller is charged for.
    """

    inputs: list[TextInput | ServiceError]
    timeout_s: float | None
    single: bool
    memo: Any = None
    ask: Callable[[ClassifyService], Awaitable[Sequence[Any]]] | None = None
    explain: Explain | None = None

    def __repr__(self) -> str:
        return "Question(...)"


@dataclass(frozen=True, slots=True)
class Page:
    """What a GET answers about the service itself.

    answer: a JSON value, or an error for the dialect to render. operation: OpenAPI's.
    """

    answer: Callable[[ClassifyService], Awaitable[Any]]
    operation: Json
    open: Open = "never"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A body that is no JSON, or no 200. headers: beside those that every answer has."""

    content: bytes
    media_type: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status: int = 200


class Dialect(Protocol):
    """One way of asking. Instances are shared by all requests, so they hold no state of one.

    name: as metrics have it. paths: answered by POST. access_scope: what a key needs for them.
    pages: path → what a GET answers there.
    """

    name: str
    paths: tuple[str, ...]
    access_scope: AccessScope
    pages: Mapping[str, Page]

    def parse(self, body: Body, scope: Scope) -> Question:
        """What `body` asks. Large bodies are parsed in a thread of their own.

        Raises:
            ServiceError: it can't be understood, or breaks a limit.
        """
        ...

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes | Rendered:
        """The body of the 200. answers: one per input; of a single question it is no error."""
        ...

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        """Status and body, where the request as a whole has no answer. Retry-After is added."""
        ...

    def operation(self, with_keys: bool) -> Json:
        """OpenAPI's operation object for these paths. with_keys: callers must say who they are."""
        ...


@runtime_checkable
class Family(Dialect, Protocol):
    """A dialect that also answers what begins as its paths do, and is none of them.

    prefix: how they begin, up to a slash.
    """

    prefix: str

    def stranger(self, rest: str) -> ServiceError:
        """Why there is nothing at `prefix` + `rest`."""
        ...


@runtime_checkable
class ReadsMore(Protocol):
    """A dialect that takes other content types than the rest do. media_types: all it takes."""

    media_types: tuple[str, ...]


class Choices(msgspec.Struct):
    """The fields of our own requests, for dialects that have a place for more."""

    top_k: Annotated[int, msgspec.Meta(ge=1, le=ALL_LABELS)] | None = None
    raw_scores: bool = False
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    truncation: bool = True

    @property
    def options(self) -> Options:
        return Options(self.top_k, self.raw_scores, self.threshold, self.truncation)


def answered(answers: Sequence[T | ServiceError], field: str) -> list[T]:
    """All answers, or all inputs, for a dialect that has no words for the error of one item.

    Raises:
        ServiceError: the first error, with the item's place as `inputs[3]`.
    """
    for i, answer in enumerate(answers):
        if isinstance(answer, ServiceError):
            raise at_place(answer, f"{field}[{i}]") if len(answers) > 1 else answer
    return [answer for answer in answers if not isinstance(answer, ServiceError)]


def at_place(error: ServiceError, place: str) -> ServiceError:
    """The same error, saying where."""
    message, *more = error.args
    return type(error)(f"{place}: {message}", *more)


def operation(
    name: str, summary: str, request: Json, answer: Json, statuses: Sequence[int], error: Json
) -> Json:
    """OpenAPI's operation object. request, answer, error: JSON schemas. statuses: of errors."""
    told: Json = {"description": "An error", "content": {JSON: {"schema": error}}}
    given: Json = {"description": "The answer", "content": {JSON: {"schema": answer}}}
    described: Json = {
        "operationId": name,
        "tags": ["Other servers' dialects"],
        "summary": summary,
        "responses": {"200": given, **{str(status): told for status in statuses}},
    }
    if request:
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": request}}}
    return described
