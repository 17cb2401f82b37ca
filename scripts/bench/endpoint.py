"""Where a service under load listens, and how it is spoken to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route that classifies one text a request, by POST.

    url: scheme, host and port, no slash at the end; path: begins with a slash;
    body: text → the body of the request, as it goes over the wire;
    label_of: the body of a 200 answer → the label that it names.
    """

    url: str
    path: str
    body: Callable[[str], bytes]
    label_of: Callable[[bytes], str]
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class PeerUnavailable(Exception):
    """This peer can't run here; the message says why, in one line that may be printed."""
