"""The output of `serve run`: followed as it grows, and condensed to what a reader needs."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LOUD = re.compile(r"\b(WARNING|WARN|ERROR|CRITICAL)\b|Error:|Exception:")
_WARNING = re.compile(r"\bWARN(ING)?\b")
# Said at every start of Ray or at every stop, and no cause for anybody to act.
_NOISE = re.compile(
    r"Token authentication is enabled|SIGTERM received|is deprecated|FutureWarning"
    r"|server on port \d+: Failed to bind"  # a replica takes the next port
    r"|stopped without confirming|controller has not been initialized"
)
_DASHBOARD = re.compile(r"dashboard at (https?://\S+)")
_SUBMITTED = "Submitted deploy config"
# The last line of a traceback: `module.Error: message`, not indented.
_CAUSE = re.compile(
    r"^(?:\(.*?\) )?(?:[A-Za-z_][\w.]*\.)?"
    r"[A-Z]\w*(?:Error|Exception|NotFound|Refused|Broken|Unavailable)\b.*"
)


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


def is_loud(line: str) -> bool:
    """Whether a line should be seen while the service runs."""
    return bool(_LOUD.search(line)) and not _NOISE.search(line)


def is_warning(line: str) -> bool:
    """Whether a line is a warning that somebody can act on."""
    return is_loud(line) and bool(_WARNING.search(line))


def causes(lines: list[str], at_most: int = 8) -> list[str]:
    """Of a long text with tracebacks, the lines that name the errors, each once, last ones kept."""
    named = dict.fromkeys(line.strip() for line in lines if _is_cause(line))
    loud = [line.strip() for line in lines if is_loud(line)]
    found = list(named) or list(dict.fromkeys(loud)) or [line for line in lines if line.strip()]
    return [line[:500] for line in found[-at_most:]]


def _is_cause(line: str) -> bool:
    return bool(_CAUSE.match(line)) and not line.rstrip().endswith("(most recent call last):")
