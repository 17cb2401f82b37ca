"""A model's parts without what reads them: `reading` runs once, elsewhere, and what it made is
kept until a file, a version, the kind of machine or a setting of the model changes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from deployments.model.cache import cache_dir, write_wholly
from deployments.model.source import (
    ModelNotFound,
    ModelRefused,
    find_model,
    is_commit,
    own_words,
)
from deployments.pipeline.parts import ModelParts
from deployments.settings import ModelSettings

logger = logging.getLogger(__name__)

_WEIGHTS = {".safetensors", ".bin", ".pt", ".onnx", ".h5", ".msgpack", ".gguf"}
# Changes whenever the same files would be read differently.
_FORMAT = 2
_memory: dict[str, ModelParts] = {}


def read_apart(settings: ModelSettings) -> ModelParts:
    """What `reading.read` gives, made in a process of its own that ends again.

    In this process where transformers is here already.

    Raises:
        ModelNotFound, ModelRefused: as `read`.
    """
    if (known := remembered(settings)) is not None:
        return known
    key = _key(settings)
    place = _place(settings, key)
    parts = _kept(place)
    if parts is None:
        with own_words(settings.id):
            parts = _read_here(settings) if "transformers" in sys.modules else _read(settings)
        if place is not None:
            with suppress(OSError):  # where there is no room it is made again each time
                write_wholly(place, json.dumps(parts.to_json(), ensure_ascii=False))
    if key is not None:
        _memory.clear()  # one or two models live at a time; a tokenizer may have 30 MB
        _memory[key] = parts
    return _named(parts, settings)


def remembered(settings: ModelSettings) -> ModelParts | None:
    """What this process has read already; None where it hasn't, or files changed since."""
    key = _key(settings)
    return _named(_memory[key], settings) if key is not None and key in _memory else None


def _named(parts: ModelParts, settings: ModelSettings) -> ModelParts:
    """Under its name in these settings: the same files may be reached by several."""
    return replace(parts, info=replace(parts.info, model=settings.id))


def _read_here(settings: ModelSettings) -> ModelParts:
    from deployments.model.reading import read

    return read(settings)


def _read(settings: ModelSettings) -> ModelParts:
    # Ray adds to sys.path what an application's working_dir brings.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.model.reading"],
        input=json.dumps(settings.model_dump()),
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise ModelRefused(
            f"the process that reads the files of model {settings.id!r} ended with exit code "
            f"{done.returncode} and no answer; its output has the traceback. "
            "Give the machine more memory if it was killed (-9)."
        ) from None
    if "refused" in answer:
        raise ModelRefused(answer["refused"])
    if "missing" in answer:
        raise ModelNotFound(answer["missing"])
    return ModelParts.from_json(answer["parts"])


def _kept(place: Path | None) -> ModelParts | None:
    if place is None or not place.is_file():
        return None
    try:
        parts = ModelParts.from_json(json.loads(place.read_text(encoding="utf-8")))
        parts.encoder()
    except Exception as exc:  # the library knows no kind of its own
        logger.warning("the parts in the cache are damaged (%s): read anew", type(exc).__name__)
        return None
    return parts


def _key(settings: ModelSettings) -> str | None:
    """Of all that the parts are made of; None for a name on the hub that may move."""
    source = Path(find_model(settings.id))
    asked = settings.model_dump(exclude={"id", "fingerprint", "allow_pickle"})
    digest = hashlib.sha256(
        json.dumps(
            [
                _FORMAT,
                *(metadata.version(name) for name in ("transformers", "tokenizers")),
                platform.machine(),
                asked,
            ]
        ).encode()
    )
    if not source.is_dir():
        if not is_commit(settings.revision):
            return None
        digest.update(settings.id.encode())
        return digest.hexdigest()
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix not in _WEIGHTS:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"\n{path.name} {content}".encode())
        elif path.is_file():
            digest.update(f"\n{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()


def _place(settings: ModelSettings, key: str | None) -> Path | None:
    cache = cache_dir()
    return None if cache is None or key is None else cache / "parts" / f"{key}.json"
