"""The ASGI application: a look-up for the dialects' paths, Starlette for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.access.callers import Callers
from deployments.http.access_gate import AccessGate
from deployments.http.body import HeldBytes
from deployments.http.classify_route import ClassifyRoute
from deployments.http.dialects import Dialect, dialects
from deployments.http.dialects.base import Family
from deployments.http.docs import docs_routes
from deployments.http.openapi import openapi_route
from deployments.http.responses import error_answer
from deployments.http.routes import STREAM, table
from deployments.http.service import ClassifyService
from deployments.http.status_routes import Addresses, family_mount, page_route, status_routes
from deployments.http.stream_route import StreamRoute
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.observer import SILENT, Observer
from deployments.privacy.audit import AuditLog
from deployments.settings import AccessSettings, LimitSettings

_OPEN_TO_ALL = AccessSettings()


def create_app(
    service: ClassifyService,
    limits: LimitSettings,
    access: AccessSettings = _OPEN_TO_ALL,
    audit: AuditLog | None = None,
    observer: Observer = SILENT,
    spoken: Sequence[Dialect] | None = None,
    callers: Callers | None = None,
    metrics: Addresses | None = None,
) -> ASGIApp:
    """The application that serves `service` over HTTP, to whom `access` lets in.

    audit: where decisions are recorded. observer: told what happens to requests. spoken: the
    dialects; None: all there are. callers: as AccessGate's. metrics: what GET / shows of their
    addresses, but where keys are asked for: these are of machines inside.

    Raises:
        WrongFileError: the keys that `access` names can't be used.
    """
    held = HeldBytes(limits.max_held_body_bytes)
    spoken = dialects(limits) if spoken is None else spoken
    entries = table(spoken, access.enabled)
    posts: dict[str, ASGIApp] = {
        path: ClassifyRoute(dialect, service, limits, held, audit, observer)
        for dialect in spoken
        for path in dialect.paths
    }
    posts[STREAM] = StreamRoute(service, limits, held, audit, observer)
    rest = Starlette(
        routes=[
            *(Route(path, route, methods=["POST"]) for path, route in posts.items()),
            *(
                page_route(*page, dialect, service)
                for dialect in spoken
                for page in dialect.pages.items()
            ),
            *status_routes(service, None if access.enabled else metrics),
            openapi_route(entries, access),
            *docs_routes(),
            *(family_mount(dialect, entries) for dialect in spoken if isinstance(dialect, Family)),
        ],
        exception_handlers={
            ServiceError: _answer_error,
            HTTPException: _answer_error,
            Exception: _answer_error,
        },
    )
    # /classify/ is a 404: a redirect would have callers send text and key again, to an address made
    # of the Host header and, behind TLS, in the clear.
    rest.router.redirect_slashes = False
    app: ASGIApp = _Shortcut(posts, rest)
    if access.enabled:
        app = AccessGate(app, access, entries, callers, observer)
    if access.cors_origins:
        # Outside the gate: a browser's preflight carries no key.
        app = CORSMiddleware(
            app,
            allow_origins=access.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    return app


async def _answer_error(request: Request, exc: Exception) -> Response:
    return error_answer(exc, request.scope)


class _Shortcut:
    """Calls a POST's route where Starlette would after routing and middleware; 1.4× under load."""

    def __init__(self, posts: Mapping[str, ASGIApp], rest: ASGIApp) -> None:
        self._posts = posts
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            path, root = scope["path"], scope.get("root_path", "")
            below = path[len(root) :] or "/"  # clients given the prefix alone ask for just that
            if path.startswith(root) and (route := self._posts.get(below)) is not None:
                await route(scope, receive, send)
                return
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            root = scope.get("root_path", "")
            if root and scope["path"] == root:
                # Links in the page at / are relative. No host is named: see create_app.
                await RedirectResponse(f"{root}/")(scope, receive, send)
                return
        try:
            await self._rest(scope, receive, send)
        except Exception:
            # Starlette answers and logs by our handler, then raises again for the server to log
            # the message and traceback, which may quote a text. Lifespan failures must stop it.
            if scope["type"] != "http":
                raise
