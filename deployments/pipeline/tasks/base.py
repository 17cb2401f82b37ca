"""The seam that a kind of model hangs on: how inputs become sequences, and logits an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tokenizers import Tokenizer

from deployments.pipeline.observer import SILENT, Observer
from deployments.pipeline.tokenize import EncodedTexts, TypeIds
from deployments.pipeline.types import Answer, Logits, ModelInfo, Options, TextInput
from deployments.user_config import PostprocessorUserConfig


class Encoder(Protocol):
    """Inputs → token ids, at most `max_length` each. Several threads may call it at once.

    inline_chars: so many may be encoded on an event loop, where others wait for it.
    untruncated: the tokenizer, cutting nothing.
    """

    max_length: int
    inline_chars: int
    untruncated: Tokenizer

    def encode(self, inputs: Sequence[TextInput]) -> EncodedTexts:
        """Token ids of all inputs that have some, and why the others have none."""
        ...


class Decoder(Protocol):
    """Logits → answers."""

    def decode(self, logits: Logits, options: Sequence[Options]) -> list[Answer]:
        """One JSON-ready answer per text; those of rows in `logits.errors` mean nothing."""
        ...


class Task(Protocol):
    """What a model's head means. Instances hold no state.

    name: stands in `ModelInfo.task`, as transformers names its pipelines.
    """

    name: str

    def encoder(self, tokenizer: Tokenizer, info: ModelInfo, type_ids: TypeIds) -> Encoder:
        """Raises ValueError where `info.max_length` leaves no room for a text."""
        ...

    def decoder(
        self,
        info: ModelInfo,
        defaults: PostprocessorUserConfig | None = None,
        observer: Observer = SILENT,
    ) -> Decoder:
        """defaults: of what callers leave open. observer: told what texts were found to be."""
        ...
