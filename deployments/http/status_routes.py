"""GET /health, /ready, /info and /: what the service says about itself."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from deployments.http.dialects.base import Dialect, Page
from deployments.http.responses import JSONAnswer, error_answer
from deployments.http.service import ClassifyService


def status_routes(service: ClassifyService) -> list[Route]:
    """Routes for probes and people."""

    async def health(request: Request) -> Response:
        return JSONAnswer({"status": "ok"})

    async def ready(request: Request) -> Response:
        await service.readiness()
        return JSONAnswer({"status": "ready"})

    async def info(request: Request) -> Response:
        return JSONAnswer(await service.info("certificate" in request.query_params))

    return [
        Route("/health", health),
        Route("/ready", ready),
        Route("/info", info),
        Route("/", index),
    ]


def page_route(path: str, page: Page, dialect: Dialect, service: ClassifyService) -> Route:
    """A dialect's own question about the service, with errors in the dialect's words."""

    async def answer(request: Request) -> Response:
        try:
            return JSONAnswer(await page.answer(service))
        except Exception as exc:
            return error_answer(exc, request.scope, dialect.render_error)

    return Route(path, answer)


async def index(request: Request) -> Response:
    """People land on the documentation, programs on a list of what there is."""
    root = request.scope.get("root_path", "")
    vary = {"Vary": "Accept"}
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{root}/docs", headers=vary)
    return JSONAnswer(
        {
            "service": "rayclassify",
            "classify": f"POST {root}/classify",
            "docs": f"{root}/docs",
            "openapi": f"{root}/openapi.json",
            "info": f"{root}/info",
        },
        headers=vary,
    )
