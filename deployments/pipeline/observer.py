"""The seam for whoever wants to know what happens: called at each stage, silent by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from deployments.pipeline.drift import Baseline
from deployments.pipeline.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError

Stage = Literal["http", "grpc", "parse", "tokenize", "queue", "model", "postprocess", "explain"]
"""http, grpc: a whole request, from its head to its answer. queue: from a text's arrival at the
Classifier to its forward pass. The others are the work itself."""

Outcome = Literal["ok", "client_error", "refused", "timeout", "server_error", "cancelled"]
"""What became of a request. refused: told to come again later, by 429 or 503. cancelled: its client
went away. A list of which some texts got an error is ok."""

Retry = Literal["lost", "stuck"]
"""Why a call was made again: its replica died with it, or was joined by another as it took long."""

CascadeOutcome = Literal["first", "second", "degraded"]
"""Which model of a cascade answered a text. degraded: the first, though it was unsure."""

ShadowOutcome = Literal["compared", "dropped", "failed"]
"""What became of a text that the model on trial was to be asked. dropped: it had too much to do."""


def outcome_of(exc: BaseException) -> Outcome:
    """What became of a request that ended with this error."""
    if not isinstance(exc, ServiceError):
        return "server_error"
    if isinstance(exc, Overloaded | NotReady):
        return "refused"
    if isinstance(exc, DeadlineExceeded):
        return "timeout"
    return "client_error" if exc.status < 500 else "server_error"


def code_of(exc: BaseException) -> str:
    """As `Observer.refused` takes it."""
    return exc.code if isinstance(exc, ServiceError) else ServiceError.code


class Observer:
    """Does nothing. Subclasses override what they want to know.

    Called on the event loop, between other people's requests: a method must return within some
    microseconds and must not raise. No method is ever given a text, nor a name that callers choose.
    """

    def request(self, dialect: str, outcome: Outcome) -> None:
        """A request to classify has ended. dialect: `Dialect.name`, or stream, grpc or handle."""

    def stage(self, stage: Stage, seconds: float, n_texts: int) -> None:
        """A stage took so long for so many texts together."""

    def batch(self, n_texts: int, tokens: int, longest: int) -> None:
        """A forward pass was made over so many texts; `longest`: tokens of the longest of them."""

    def truncated(self, n_texts: int) -> None:
        """Of so many texts the model read only a part."""

    def refused(self, reason: str, n_texts: int) -> None:
        """So many texts, or one request, got an error. reason: `ServiceError.code`."""

    def labelled(
        self,
        labels: tuple[str, ...],
        best: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32] | None,
    ) -> None:
        """Texts were given labels. labels: all of the model's; best: each text's, by its place
        among them, int64 [n]. scores: of those labels, 0 to 1, float32 [n]; None where they are no
        such numbers."""

    def features(self, baseline: Baseline, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Texts had such features. values: by name, as drift.FEATURES, a number for each text; of
        `labels` their places among the model's. Names that the baseline lacks count for nothing."""

    def cascaded(self, outcome: CascadeOutcome, n_texts: int) -> None:
        """So many texts were answered by this model of a cascade."""

    def shadowed(self, outcome: ShadowOutcome, n_texts: int) -> None:
        """So many texts were chosen for the model on trial, and this became of them."""

    def compared(self, labels: tuple[str, ...], served: str, other: str, difference: float) -> None:
        """A text was answered by both. labels: of the model that serves, which gave `served`; the
        one on trial gave `other`. difference: between their scores of `served`, 0 to 1."""

    def retried(self, cause: Retry) -> None:
        """A call to a replica was made once more."""

    def quarantined(self) -> None:
        """A text was found guilty of killing its process, or of hanging with it."""

    def tokenizer_checked(self, *, same: bool) -> None:
        """A text was encoded a second time, by the reference. Called from one thread of its own."""

    def working(self, stats: Mapping[str, float]) -> None:
        """How a replica stands, several times a second; see scaling/policy.py for the names."""

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """`read()`, on the event loop, tells how a number stands. name: a metric's, as in
        replica/metric_table.py."""

    def about(self, name: str, facts: Mapping[str, object]) -> None:
        """What does not change as long as the process lives, such as the model."""


class Tracer(Protocol):
    """Who follows a request into the batch that it runs in; see replica/tracing.py."""

    def current(self) -> Any:
        """A mark of the request that the caller is in."""
        ...

    def batch(self, requests: Sequence[Any]) -> AbstractContextManager[None]:
        """Around the work for all requests of these marks together."""
        ...


SILENT = Observer()
