"""Headers that every answer of ours carries."""

from __future__ import annotations

NOSNIFF = (b"x-content-type-options", b"nosniff")
NO_STORE = (b"cache-control", b"no-store")

ANSWER_HEADERS = (NOSNIFF, NO_STORE)
"""Of all that is said about a text or by the service: no guessing of types, no copy in a cache.

Constants, added where answers are made: a wrapper around `send` would cost every request more.
"""
