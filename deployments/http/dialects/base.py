"""The seam that a way of asking over HTTP hangs on: its paths, its JSON in and out, its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import Scope

from deployments.access.keys import Scope as AccessScope
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer, TextInput

Json = dict[str, Any]


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
    memo: what `render` needs to know of the request.
    """

    inputs: list[TextInput | ServiceError]
    timeout_s: float | None
    single: bool
    memo: Any = None

    def __repr__(self) -> str:
        return "Question(...)"


class Dialect(Protocol):
    """One way of asking. Instances are shared by all requests, so they hold no state of one.

    paths: answered by POST. access_scope: what a key needs for them.
    """

    paths: tuple[str, ...]
    access_scope: AccessScope

    def parse(self, body: Body, scope: Scope) -> Question:
        """What `body` asks. Large bodies are parsed in a thread of their own.

        Raises:
            ServiceError: it can't be understood, or breaks a limit.
        """
        ...

    def render(
        self, question: Question, answers: list[Answer | ServiceError], scope: Scope
    ) -> bytes:
        """The body of the 200. answers: one per input; of a single question it is no error."""
        ...

    def render_error(self, error: ServiceError, request_id: str) -> tuple[int, bytes]:
        """Status and body, where the request as a whole has no answer. Retry-After is added."""
        ...

    def operation(self, with_keys: bool) -> Json:
        """OpenAPI's operation object for these paths. with_keys: callers must say who they are."""
        ...
