"""The seam for whoever wants to know what happens: called at each stage, silent by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

Stage = Literal["http", "grpc", "parse", "tokenize", "queue", "model", "postprocess"]
"""http, grpc: a whole request, from its head to its answer. queue: from a text's arrival at the
Classifier to its forward pass. The others are the work itself."""


class Observer:
    """Does nothing. Subclasses override what they want to know.

    Called on the event loop, between other people's requests: a method must return within some
    microseconds and must not raise. No method is ever given a text.
    """

    def stage(self, stage: Stage, seconds: float, n_texts: int) -> None:
        """A stage took so long for so many texts together."""

    def batch(self, n_texts: int, tokens: int, longest: int) -> None:
        """A forward pass was made over so many texts; `longest`: tokens of the longest of them."""

    def truncated(self, n_texts: int) -> None:
        """Of so many texts the model read only a part."""

    def refused(self, reason: str, n_texts: int) -> None:
        """So many texts, or one request, got an error. reason: `ServiceError.code`."""

    def labelled(self, counts: Mapping[str, int]) -> None:
        """Label → how many texts were just given it."""

    def working(self, stats: Mapping[str, float]) -> None:
        """How a replica stands, several times a second; see scaling/policy.py for the names."""


class Tracer(Protocol):
    """Who follows a request into the batch that it runs in; see replica/tracing.py."""

    def current(self) -> Any:
        """A mark of the request that the caller is in."""
        ...

    def batch(self, requests: Sequence[Any]) -> AbstractContextManager[None]:
        """Around the work for all requests of these marks together."""
        ...


SILENT = Observer()
