"""Requests of one text, and of many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deployments.bench.client import Endpoint


@dataclass(frozen=True, slots=True)
class Kind:
    """texts: in a request; 1: a single text, no list."""

    texts: int
    connections: int

    def __str__(self) -> str:
        asked = "single texts" if self.texts == 1 else f"lists of {self.texts}"
        return f"{asked}, {self.connections} connections"

    def endpoint(self, of: Endpoint) -> Endpoint:
        def body(text: str) -> bytes:
            asked = text if self.texts == 1 else text.split("\0")
            return json.dumps({"text": asked}, ensure_ascii=False).encode()

        return replace(of, body=body)

    def requests(self, texts: Sequence[str]) -> list[str]:
        """Of each request its texts, side by side."""
        n = self.texts
        return ["\0".join(texts[i : i + n]) for i in range(0, len(texts) - n + 1, n)]


LISTS = (Kind(32, 16), Kind(256, 4))
