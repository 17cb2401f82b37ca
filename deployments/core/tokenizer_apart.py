"""The tokenizer of a model's parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployments.core.read_apart import read_apart
from deployments.settings import ModelSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer_apart(settings: ModelSettings) -> Tokenizer:
    """Without transformers in this process.

    Raises:
        ModelNotFound: as `load_parts`.
    """
    from tokenizers import Tokenizer

    return Tokenizer.from_str(read_apart(settings).tokenizer)
