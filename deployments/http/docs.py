"""GET /docs: Swagger UI from the package, so that it works where no CDN is reached."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from deployments.http.responses import NOSNIFF

STATIC = Path(__file__).parent / "static"

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def docs_routes() -> list[BaseRoute]:
    """The page and its assets; links in the page are relative, so any prefix will do."""
    return [
        Route("/docs", docs_page),
        Mount("/docs/assets", _Assets(directory=STATIC)),
    ]


class _Assets(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.raw_headers.append(NOSNIFF)
        return response


async def docs_page(request: Request) -> Response:
    return FileResponse(
        STATIC / "docs.html",
        media_type="text/html",
        headers={
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )
