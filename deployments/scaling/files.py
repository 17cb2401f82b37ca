"""Small files beside Serve's logs, where Ray's dashboard lets them be read from elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path

_serve = logging.getLogger("ray.serve")


def write_beside_log(name: str, text: str) -> None:
    """Writes it whole, or not at all: where this is no process of Serve's, or the disk is full.

    Only people read it, so nothing may depend on it: neither a decision nor a replica's start.
    """
    for handler in _serve.handlers:
        inner = getattr(handler, "target", handler)  # Serve may buffer its log in memory
        if path := getattr(inner, "baseFilename", None):
            part = Path(path).parent / f".{name}.part"
            try:
                part.write_text(text, encoding="utf-8")
                part.replace(part.parent / name)
            except OSError as exc:
                _serve.debug("%s is not written (%s)", name, type(exc).__name__)
            return
