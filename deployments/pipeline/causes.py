"""What went wrong, out of a long text with tracebacks: a log's, or what Serve says of a failure."""

from __future__ import annotations

import re

_LOUD = re.compile(r"\b(WARNING|WARN|ERROR|CRITICAL)\b|Error:|Exception:")
_WARNING = re.compile(r"\bWARN(ING)?\b")
# Said at every start of Ray or at every stop, and no cause for anybody to act.
_NOISE = re.compile(
    r"Token authentication is enabled|SIGTERM received|is deprecated|FutureWarning"
    r"|server on port \d+: Failed to bind"  # a replica takes the next port
    r"|stopped without confirming|controller has not been initialized"
    r"|Failed to get queue length from Replica"  # a busy machine; the router asks again
)
# The last line of a traceback, `module.Error: message`, not indented; or what HAProxy dies of.
_CAUSE = re.compile(
    r"^(?:\(.*?\) )?(?:\[ALERT\] |(?:[A-Za-z_][\w.]*\.)?"
    r"[A-Z]\w*(?:Error|Exception|NotFound|Refused|Broken|Unavailable)\b).*"
)


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
