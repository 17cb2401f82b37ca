"""How long an answer took, as headers: the names and the unit of Text Embeddings Inference."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer, TimedAnswer


class Times:
    """Of one request, in seconds; of several texts the mean, as theirs are answered side by side.

    queue_s: neither tokenizing nor the model's pass: waiting, and the ways between the stages.
    """

    __slots__ = ("model_s", "queue_s", "tokenize_s")

    def __init__(self) -> None:
        self.tokenize_s = self.queue_s = self.model_s = 0.0

    def take(self, answers: Sequence[Answer | ServiceError], took_s: float) -> None:
        """took_s: until all of them were there."""
        timed = [answer for answer in answers if isinstance(answer, TimedAnswer)]
        if timed:
            self.tokenize_s = sum(answer.tokenize_s for answer in timed) / len(timed)
            self.model_s = sum(answer.model_s for answer in timed) / len(timed)
        self.queue_s = max(0.0, took_s - self.tokenize_s - self.model_s)

    def headers(self, total_s: float) -> tuple[tuple[bytes, bytes], ...]:
        """Whole milliseconds. (text-embeddings-inference 1.9.3, router/src/lib.rs.)"""
        total_ms = b"%.0f" % (total_s * 1e3)
        return (
            (b"x-compute-time", total_ms),
            (b"x-total-time", total_ms),
            (b"x-tokenization-time", b"%.0f" % (self.tokenize_s * 1e3)),
            (b"x-queue-time", b"%.0f" % (self.queue_s * 1e3)),
            (b"x-inference-time", b"%.0f" % (self.model_s * 1e3)),
        )
