"""GET /health, /ready, /info, /state and /: what the service says about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketClose

from deployments.http.dialects.base import Dialect, Family, Page
from deployments.http.docs import html_page
from deployments.http.responses import JSONAnswer, error_answer
from deployments.http.routes import Table
from deployments.http.service import ClassifyService

Addresses = Callable[[], Awaitable[Sequence[str]]]
"""Where the metrics of each node are, as URLs."""


def status_routes(service: ClassifyService, metrics: Addresses | None = None) -> list[Route]:
    """Routes for probes and people. metrics: shown to all who ask; None shows none."""

    async def health(request: Request) -> Response:
        return JSONAnswer({"status": "ok"})

    async def ready(request: Request) -> Response:
        await service.readiness()
        return JSONAnswer({"status": "ready"})

    async def info(request: Request) -> Response:
        return JSONAnswer(await service.info("certificate" in request.query_params))

    async def start(request: Request) -> Response:
        return index(request, await metrics() if metrics is not None else ())

    async def state(request: Request) -> Response:
        return JSONAnswer(await service.state())

    return [
        Route("/health", health),
        Route("/ready", ready),
        Route("/info", info),
        Route("/state", state),
        Route("/", start),
    ]


def page_route(path: str, page: Page, dialect: Dialect, service: ClassifyService) -> Route:
    """A dialect's own question about the service, with errors in the dialect's words."""

    async def answer(request: Request) -> Response:
        try:
            return JSONAnswer(await page.answer(service))
        except Exception as exc:
            return error_answer(exc, request.scope, dialect.render_error)

    return Route(path, answer)


def family_mount(dialect: Family, entries: Table) -> Mount:
    """All that begins as the dialect's paths do, for after them: its own words for what is wrong.

    Starlette comes here with a wrong method too, as this takes any.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await WebSocketClose()(scope, receive, send)
            return
        rest: str = scope["path"].partition(dialect.prefix)[2]
        error: Exception = dialect.stranger(rest)
        if rest and (known := entries.get(dialect.prefix + rest)):
            allowed = ", ".join("GET, HEAD" if e.method == "GET" else e.method for e in known)
            error = HTTPException(405, headers={"Allow": allowed})
        await error_answer(error, scope, dialect.render_error)(scope, receive, send)

    return Mount(dialect.prefix.rstrip("/"), answer)


def index(request: Request, metrics: Sequence[str]) -> Response:
    """People get the playground, programs a list of what there is."""
    root = request.scope.get("root_path", "")
    vary = {"Vary": "Accept"}
    if "text/html" in request.headers.get("accept", ""):
        return html_page("playground.html", vary)
    return JSONAnswer(
        {
            "service": "rayclassify",
            "status": "alive",  # what KServe's client looks for here
            "classify": f"POST {root}/classify",
            "playground": f"{root}/",
            "docs": f"{root}/docs",
            "openapi": f"{root}/openapi.json",
            "info": f"{root}/info",
            **({"metrics": metrics} if metrics else {}),
        },
        headers=vary,
    )
