"""Where what is costly to find out or to make is kept: choices of engines, converted models."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

CACHE_DIR_ENV = "RAYCLASSIFY_CACHE_DIR"


def cache_dir() -> Path | None:
    """The user's cache directory for this package, made if need be; None where none can be written.

    `RAYCLASSIFY_CACHE_DIR` names another one.
    """
    try:
        named = os.environ.get(CACHE_DIR_ENV)
        path = Path(named) if named else Path(platformdirs.user_cache_dir("rayclassify"))
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    return path if os.access(path, os.W_OK | os.X_OK) else None


def write_wholly(path: Path, text: str) -> None:
    """At once, as others may read it meanwhile, or not at all.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        unfinished = Path(file.name)
        try:
            file.write(text)
            file.flush()
            # Or a machine that loses power may keep the name and no content.
            os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
