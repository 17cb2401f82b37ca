"""Ways of asking over HTTP: whose JSON it is, and at which paths.

- base: The seam that a way of asking over HTTP hangs on: its paths, its JSON in and out, its errors
- classify: Our own dialect: POST /classify, in JSON, as a form or as plain text

http/routes.py imports it. A new dialect is one new file here and one line in `dialects`.
"""

from __future__ import annotations

from deployments.http.dialects.base import Dialect
from deployments.http.dialects.classify import ClassifyDialect
from deployments.settings import LimitSettings


def dialects(limits: LimitSettings) -> tuple[Dialect, ...]:
    """All that the service understands."""
    return (ClassifyDialect(limits),)


__all__ = ["Dialect", "dialects"]
