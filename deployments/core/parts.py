"""All that texts and logits need of a model beside its weights, under one name on the wire.

Whoever makes token ids, runs them or names labels does so for one model's parts. While an update
runs two models live; ids and logits carry the `version` of the parts they belong to, and nothing
is ever decoded by another's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from deployments.core.model_source import find_model, own_words
from deployments.core.postprocess import LabelDecoder
from deployments.core.tokenize import TextEncoder, TypeIds
from deployments.core.types import ModelInfo
from deployments.settings import ModelSettings

# What makes a model another one. Not its README, nor calibration.json, which has a version with
# the other settings.
_CONTENT = (
    *("config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json"),
    *("tokenizer*", "vocab*", "merges*", "*.model", "special_tokens_map.json", "added_tokens.json"),
    "*.py",
)


@dataclass(frozen=True, slots=True)
class ModelParts:
    """One model as Tokenizer and Postprocessor see it.

    fingerprint: of weights, config and tokenizer. tokenizer: the Rust tokenizer, as JSON.
    type_ids: what of token types the model is given. split_special_tokens: whether a mark that
    stands in a text is read as text. texts_proven: on how many texts and pairs this tokenizing
    equals transformers' own. remarks: what of the directory was left aside, and why that is
    harmless.
    """

    fingerprint: str
    info: ModelInfo
    tokenizer: str
    type_ids: TypeIds = "where_not_zero"
    split_special_tokens: bool = False
    texts_proven: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The name on the wire: another limit or calibration of one model is another version.

        It begins with 12 digits of the fingerprint.
        """
        encoding = [self.tokenizer, self.type_ids, self.split_special_tokens]
        rest = json.dumps([asdict(self.info), *encoding]).encode()
        return f"{self.fingerprint[:12]}-{hashlib.sha256(rest).hexdigest()[:12]}"

    def encoder(self) -> TextEncoder:
        """A new encoder: text → this model's token ids."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.encode_special_tokens = self.split_special_tokens
        return TextEncoder(tokenizer, self.info.max_length, self.type_ids)

    def decoder(self) -> LabelDecoder:
        """A new decoder: this model's logits → labels."""
        return LabelDecoder(self.info)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(kept: dict[str, Any]) -> ModelParts:
        """Raises TypeError or KeyError where `kept` is something else."""
        info = ModelInfo(**{**kept["info"], "labels": tuple(kept["info"]["labels"])})
        return ModelParts(**{**kept, "info": info, "remarks": tuple(kept["remarks"])})


def load_parts(settings: ModelSettings) -> ModelParts:
    """Reads the model's parts; what takes torch or transformers is done in a process apart.

    Raises:
        ModelNotFound: a file is missing, or says what can't be honoured (ModelRefused).
    """
    from deployments.core.read_apart import read_apart

    with own_words(settings.id):
        return replace(read_apart(settings), fingerprint=fingerprint(settings) or settings.id)


def fingerprint(settings: ModelSettings) -> str | None:
    """SHA-256 over weights, config and tokenizer of a directory, or the commit that the hub's cache
    holds; None where the model is not here yet."""
    source = Path(find_model(settings.id))
    if not source.is_dir():
        return _hub_commit(settings)
    files = sorted({path for pattern in _CONTENT for path in source.glob(pattern)})
    seen = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return _digest(tuple(seen))


@lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """Once for each state of the files: weights have gigabytes, and several ask at a start."""
    digest = hashlib.sha256()
    for name, size, _ in files:
        with Path(name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{Path(name).name} {size} {content}\n".encode())
    return digest.hexdigest()


def _hub_commit(settings: ModelSettings) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(settings.id, "config.json", revision=settings.revision)
    return Path(cached).parent.name if isinstance(cached, str) else None
