"""The output of `serve run`: followed as it grows, and condensed to what a reader needs."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

from deployments.pipeline.causes import causes

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DASHBOARD = re.compile(r"dashboard at (https?://\S+)")
_SUBMITTED = "Submitted deploy config"


class ChildLog:
    """Reads the growing log file; call `read` again and again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(encoding="utf-8", errors="replace")
        self._partial = ""
        self._last: deque[str] = deque(maxlen=200)
        self.dashboard: str | None = None
        self.submitted = False

    def read(self) -> list[str]:
        """The complete lines written since the last call, without colours."""
        *lines, self._partial = _ANSI.sub("", self._partial + self._file.read()).split("\n")
        self._last.extend(line for line in lines if line.strip())
        for line in lines:
            if found := _DASHBOARD.search(line):
                self.dashboard = found.group(1)
            self.submitted = self.submitted or _SUBMITTED in line
        return lines

    def cause(self, at_most: int = 8) -> list[str]:
        """The lines that say why it failed: the errors of tracebacks, else the last lines."""
        return causes(list(self._last), at_most)

    def close(self) -> None:
        self._file.close()
