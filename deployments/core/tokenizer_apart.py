"""The tokenizer without what reads it.

transformers brings torch with it: seconds at start and 200 MB for as long as the process lives, of
which a Tokenizer replica needs nothing more once it has its tokenizer.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.core.engines.cache import cache_dir, write_wholly
from deployments.core.model_source import find_model
from deployments.core.tokenize import load_tokenizer
from deployments.settings import ModelSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

_WEIGHTS = {".safetensors", ".bin", ".pt", ".onnx", ".h5", ".msgpack", ".gguf"}


def load_tokenizer_apart(settings: ModelSettings) -> Tokenizer:
    """What `load_tokenizer` gives, made in a process of its own that ends again.

    transformers builds some tokenizers anew from several files, so tokenizer.json alone would not
    do. What it made of a directory is kept until a file in it or a version changes.

    Raises:
        ValueError: as `load_tokenizer`.
    """
    from tokenizers import Tokenizer

    kept = _place(settings)
    if kept is not None and kept.is_file():
        try:
            return Tokenizer.from_file(str(kept))
        except Exception as exc:  # the library knows no kind of its own
            kind = type(exc).__name__
            logger.warning("the tokenizer in the cache is damaged (%s): made anew", kind)
    # spawn: a fork would copy threads' locks, and all that this process holds.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
        serialized = apart.submit(_serialized, settings).result()
    if kept is not None:
        with suppress(OSError):  # where there is no room it is made again each time
            write_wholly(kept, serialized)
    return Tokenizer.from_str(serialized)


def _serialized(settings: ModelSettings) -> str:
    text: str = load_tokenizer(settings).to_str()
    return text


def _place(settings: ModelSettings) -> Path | None:
    """Where the tokenizer of a model directory is kept; None for a hub id or without a cache."""
    source, cache = Path(find_model(settings.id)), cache_dir()
    if cache is None or not source.is_dir():
        return None
    digest = hashlib.sha256(
        f"2 {metadata.version('transformers')} {metadata.version('tokenizers')} "
        f"{settings.trust_remote_code}".encode()
    )
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in _WEIGHTS:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"\n{path.name} {content}".encode())
    return cache / "tokenizers" / f"{digest.hexdigest()}.json"
