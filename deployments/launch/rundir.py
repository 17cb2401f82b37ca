"""A private directory per run: Ray's session, HAProxy's sockets and config, the log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


class RunDir:
    """Made at start, removed after a clean stop, kept after a failure."""

    def __init__(self) -> None:
        # Short on purpose: a Unix socket's path has 107 characters at most (HAProxy: 97), and Ray
        # and Serve append up to 76. macOS's own temporary directory is too long for that.
        self.path = Path(tempfile.mkdtemp(prefix="rayclassify-", dir="/tmp"))

    @property
    def log(self) -> Path:
        return self.path / "serve.log"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
