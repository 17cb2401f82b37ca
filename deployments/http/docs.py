"""Pages from the package, so that they work where no CDN is reached: Swagger UI, the playground."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from deployments.http.responses import NOSNIFF

STATIC = Path(__file__).parent / "static"

# After an update no page may run with half of its scripts from a cache.
_ASK_AGAIN = (b"cache-control", b"no-cache")

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
        response.raw_headers += (NOSNIFF, _ASK_AGAIN)
        return response


async def docs_page(request: Request) -> Response:
    return html_page("docs.html")


def html_page(name: str, headers: Mapping[str, str] | None = None) -> Response:
    """A page of static/ that may load nothing from elsewhere, nor run what stands in itself."""
    return FileResponse(
        STATIC / name,
        media_type="text/html",
        headers={
            **(headers or {}),
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )
