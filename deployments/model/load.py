"""A model's parts, read and checked, and the fingerprint that tells one model from another."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from deployments.model.read_apart import read_apart
from deployments.model.source import find_model, own_words
from deployments.pipeline.parts import ModelParts
from deployments.settings import ModelSettings

# What makes a model another one. Not its README, nor calibration.json, which has a version with
# the other settings.
_CONTENT = (
    *("config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json"),
    *("tokenizer*", "vocab*", "merges*", "*.model", "special_tokens_map.json", "added_tokens.json"),
    "*.py",
)


def load_parts(settings: ModelSettings) -> ModelParts:
    """Reads the model's parts; what takes torch or transformers is done in a process apart.

    Raises:
        ModelNotFound: a file is missing, or says what can't be honoured (ModelRefused).
    """
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
