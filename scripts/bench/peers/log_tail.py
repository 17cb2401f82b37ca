"""Why a program failed, in one line, from its log."""

from __future__ import annotations

import re
from pathlib import Path

TAIL_BYTES = 50_000
MAX_CHARS = 300
# The end of a traceback; then, any line that speaks of an error ("ERROR: …"; not "errors: 0").
RAISED = re.compile(r"^[\w.]*(Error|Exception)(:|$)")
FAILURE = re.compile(r"\b\w*(Error|Exception|ERROR|error):\s*\S")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
FOLDERS = re.compile(r"(/[\w.+@-]+)+/(?=[\w.])")


def reason(log: Path) -> str:
    """The first error named at the end of the log, since others follow from it; else the last line.

    Without the folders of this machine. "" of an empty log.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = ANSI.sub("", file.read().decode("utf-8", "replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.search(line)]
    failures = [line for line in lines if FAILURE.search(line)]
    chosen = raised[0] if raised else failures[0] if failures else lines[-1] if lines else ""
    return FOLDERS.sub("…/", chosen)[:MAX_CHARS]
