"""What a start found out about a model on this kind of machine, kept for the next ones.

On this node's disk, and where there is a `Store` with the application: what one replica has
measured or proven, no replica on such a machine measures or proves again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import filelock

from deployments.engines.cpu import cpu_features, cpu_model
from deployments.model.cache import cache_dir, write_wholly
from deployments.model.load import fingerprint
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

# Longer than a measurement may take: who waited this long measures beside the other.
LOCK_TIMEOUT_S = 600.0
_PACKAGES = ("rayclassify", "torch", "transformers", "numpy")
# Changes whenever what is kept would be read or judged differently.
_FORMAT = 6


class Store(Protocol):
    """Where an application keeps what its replicas found out, on whichever node they run."""

    def get(self, key: str) -> str | None:
        """None where nothing is kept under this key, or the store can't be reached."""
        ...

    def put(self, key: str, value: str) -> None:
        """Keeps it if it can; must not raise."""
        ...


def circumstances(
    model: ModelSettings, engine: EngineSettings, num_threads: int
) -> dict[str, Any] | None:
    """All that a choice or a proof depends on; None where the model's files are not here yet."""
    content = fingerprint(model)
    if content is None:
        return None
    return {
        "format": _FORMAT,
        "model": content,
        "max_length": model.max_length,
        "engine": engine.model_dump(),
        "num_threads": num_threads,
        "cpu": cpu_model(),
        "cpu_features": cpu_features(),
        "gpus": _gpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


class Kept:
    """One kind of findings, JSON objects by their circumstances.

    kind: a directory's name. store: the application's, if there is one.
    """

    def __init__(self, kind: str, store: Store | None = None) -> None:
        directory = cache_dir()
        self._kind, self._store = kind, store
        self._directory = directory and directory / kind

    def read(self, key: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
        """What was found under these circumstances; twice, where disk and store have it.

        What this node knows of an earlier cluster, the others of this one learn.
        """
        if key is None:
            return
        name = _name(key)
        on_disk, shared = self._on_disk(name), None
        if self._store is not None:
            shared = self._store.get(f"{self._kind} {name}")
        for text in filter(None, (on_disk, shared)):
            try:
                found = json.loads(text)["found"]
            except (ValueError, KeyError, TypeError) as exc:
                self.damaged(exc)
            else:
                if self._store is not None and shared is None:
                    self._store.put(f"{self._kind} {name}", text)
                yield found

    def damaged(self, exc: Exception) -> None:
        """To be called where what was read means nothing."""
        logger.warning("what an earlier start kept can't be read (%s)", type(exc).__name__)

    def write(self, key: dict[str, Any] | None, found: dict[str, Any]) -> None:
        """Replaces what was kept under these circumstances, at once and wholly."""
        if key is None:
            return
        name, content = _name(key), json.dumps({**key, "found": found}, indent=1)
        if self._store is not None:
            self._store.put(f"{self._kind} {name}", content)
        elif self._directory is None:
            logger.warning("%s are made anew at each start: set RAYCLASSIFY_CACHE_DIR", self._kind)
        if self._directory is None:
            return
        try:
            write_wholly(self._directory / f"{name}.json", content)
        except OSError as exc:
            logger.warning("what was found can't be cached (%s)", type(exc).__name__)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Replicas that start together on one node would disturb each other."""
        if self._directory is None:
            yield
            return
        lock = filelock.FileLock(self._directory.parent / f"{self._kind}.lock")
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except (filelock.Timeout, OSError, NotImplementedError) as exc:
            logger.warning("going on without a lock (%s)", type(exc).__name__)
        try:
            yield
        finally:
            lock.release()  # nothing where it is not held

    def _on_disk(self, name: str) -> str | None:
        if self._directory is None:
            return None
        try:
            return (self._directory / f"{name}.json").read_text("utf-8", errors="replace")
        except OSError:
            return None


def _name(key: dict[str, Any]) -> str:
    canonical = json.dumps(key, sort_keys=True, default=list)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _gpus() -> list[str]:
    """What tells one GPU node from another without asking torch."""
    models: list[str] = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        with suppress(OSError):
            models += re.findall(r"^Model:\s*(.*)", path.read_text("utf-8"), re.MULTILINE)
    # Which of them a replica may use is another each time; how many is what counts.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [*models, f"visible={None if visible is None else len(visible.split(','))}"]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
