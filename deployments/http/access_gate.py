"""The gate in front of the application: who may ask what, decided before a body is read."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.access.callers import Caller, Callers
from deployments.access.keys import Scope as AccessScope
from deployments.http.inputs import CLIENT
from deployments.http.responses import error_answer
from deployments.http.routes import Entry, Table
from deployments.pipeline.errors import Forbidden, Unauthorized
from deployments.pipeline.observer import SILENT, Observer, code_of, outcome_of
from deployments.settings import AccessSettings

_UNKNOWN = Entry("GET", "never", "classify")

CALLER = "rayclassify.caller"
"""Key of the ASGI scope that holds who asks, where keys are asked for."""

ALLOWANCE = "rayclassify.allowance"
"""Key of the ASGI scope that holds the caller's `Allowance`."""


class AccessGate:
    """Lets a request through to `app`, or answers 401, 403 or 429 in its place.

    callers: who asks, shared with others that let them in; None makes its own. observer: told who
    is not let in, and why.

    Shut by default: a path that the table does not name needs a key with the scope `classify`.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: AccessSettings,
        entries: Table,
        callers: Callers | None = None,
        observer: Observer = SILENT,
    ) -> None:
        self._app = app
        self._observer = observer
        self._entries = entries
        self._below = {
            path: below for path, below in entries.items() if path.endswith("/") and path != "/"
        }
        self._callers = Callers(access) if callers is None else callers
        self._docs_public = access.docs_public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(entry := self._entry_of(scope)):
            await self._app(scope, receive, send)
            return
        try:
            await admit(scope, self._callers, entry.access_scope)
        except Exception as exc:
            self._observer.refused(code_of(exc), 1)
            if entry.dialect:
                self._observer.request(entry.dialect, outcome_of(exc))
            answer = error_answer(exc, scope, entry.render_error)
            if isinstance(exc, Unauthorized):
                answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _entry_of(self, scope: Scope) -> Entry:
        path = _path_of(scope)
        if (entries := self._entries.get(path)) is None:
            below = (entries for start, entries in self._below.items() if path.startswith(start))
            entries = next(below, (_UNKNOWN,))
        # A method that none has gets no further than to Starlette's 405.
        return next((entry for entry in entries if entry.method == scope["method"]), entries[0])

    def _is_open(self, entry: Entry) -> bool:
        return entry.open == "always" or (self._docs_public and entry.open == "if docs_public")


async def admit(scope: Scope, callers: Callers, needed: AccessScope | None) -> None:
    """Charges a request to who asks, and notes in the scope who that is.

    Raises:
        Unauthorized, Forbidden: no key, or one without the scope `needed`.
        Overloaded: its rate or quota is used up.
    """
    caller = await callers.identify(_token_of(scope))
    if needed is not None and not caller.may(needed):
        raise _lacks(needed, caller)
    caller.allowance.take()
    scope[CLIENT] = caller.id
    scope[CALLER] = caller
    scope[ALLOWANCE] = caller.allowance


def require(scope: Scope, needed: AccessScope) -> None:
    """For what only the body asks. Raises Forbidden: keys are asked for, and this one lacks it."""
    caller: Caller | None = scope.get(CALLER)
    if caller is not None and not caller.may(needed):
        raise _lacks(needed, caller)


def _lacks(needed: AccessScope, caller: Caller) -> Forbidden:
    return Forbidden(
        f"This key has no scope {needed}; it has {', '.join(sorted(caller.scopes))}. "
        "Ask for a key that has it."
    )


def _path_of(scope: Scope) -> str:
    """The path below the prefix, by the rule that the routes behind are found by."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path


def _token_of(scope: Scope) -> bytes | None:
    """What the caller shows: X-API-Key, or a Bearer token. Other schemes are a proxy's own."""
    bearer: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value)
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = value[7:].strip()
    return bearer
