"""The one protocol behind which every way of running the model stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from deployments.pipeline.types import Encoded, EngineInfo, Logits


class EngineUnavailable(Exception):
    """This engine can't run this model here; another one may. The message says why, and the cure.

    Raised by `load`: its package is not installed, it can't convert the model's class, or it has
    no such device or dtype.
    """


class ModelBroken(Exception):
    """It loads and runs, but computes nothing of use."""


class Engine(Protocol):
    """Runs the model. Called from one thread at a time, never from the event loop.

    row_tokens: tokens that it packs into one row of a batch, to be set as one likes, best to what
    was measured; None where it packs none. padding_tokens: how many it has computed so far that
    are no text's.
    """

    row_tokens: int | None

    @property
    def padding_tokens(self) -> int: ...

    def load(self) -> None:
        """Bring the model into memory and warm it; afterwards `predict` runs at full speed."""

    def predict(self, batch: Encoded) -> Logits:
        """Logits float32 [n, labels] of n texts, in the order given.

        May raise anything: the batcher isolates the text at fault.
        """

    def info(self) -> EngineInfo:
        """Engine, device, dtype and versions, for `/info`."""


# What a longer text takes of memory is learned from one, not at every start.
_LONGEST_WARMUP = 1_024


def warm_up(
    predict: Callable[[Encoded], Logits],
    lengths: Sequence[int],
    max_length: int,
    text: Callable[[int], Encoded],
) -> None:
    """Runs a text of each of these lengths, and one as long as the model reads. text: makes them.

    Raises:
        EngineUnavailable: it does not read as much as its config says.
    """

    def run(length: int) -> None:
        errors = predict(text(length)).errors or {}
        for error in errors.values():
            raise error

    for length in lengths:
        if length < max_length:
            run(length)
    longest = min(max_length, _LONGEST_WARMUP)
    try:
        run(longest)
    except Exception as exc:
        kind = type(exc).__name__
        if isinstance(exc, MemoryError | OSError) or "OutOfMemory" in kind:
            raise
        raise EngineUnavailable(
            f"the model fails on a text of {longest} tokens ({kind}), of the {max_length} that "
            "its config promises. Set args.model.max_length lower."
        ) from exc
