"""Choices of engines that are kept: which of them still hold, and one measurer at a time.

They are kept on this node's disk, and where there is a `Store` with the application: what one
replica has measured, no replica on such a machine measures again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import filelock

from deployments.engines.cpu import cpu_features, cpu_model
from deployments.engines.measurement import Measured
from deployments.model.cache import cache_dir, write_wholly
from deployments.model.load import fingerprint
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

# Longer than a measurement may take: who waited this long measures beside the other.
LOCK_TIMEOUT_S = 300.0
_PACKAGES = ("rayclassify", "torch", "transformers", "numpy")
# Changes whenever rows would be read or judged differently.
_FORMAT = 4


class Store(Protocol):
    """Where an application keeps what its replicas found out, on whichever node they run."""

    def get(self, key: str) -> str | None:
        """None where nothing is kept under this key, or the store can't be reached."""
        ...

    def put(self, key: str, value: str) -> None:
        """Keeps it if it can; must not raise."""
        ...


class NoStore:
    """Outside of an application."""

    def get(self, key: str) -> str | None:
        return None

    def put(self, key: str, value: str) -> None:
        pass


def circumstances(
    model: ModelSettings, engine: EngineSettings, num_threads: int
) -> dict[str, Any] | None:
    """All that a choice depends on; None where the model's files are not here yet."""
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


class Choices:
    """What was measured under which circumstances. Where nothing can be kept it says so once."""

    def __init__(self, store: Store | None = None) -> None:
        directory = cache_dir()
        self._store = store or NoStore()
        self._directory = directory and directory / "choices"
        if directory is None and isinstance(self._store, NoStore):
            logger.warning(
                "no directory to cache the choice of an engine in: it is measured at each start. "
                "Set RAYCLASSIFY_CACHE_DIR to one, or args.engine's name and dtype."
            )

    def read(self, key: dict[str, Any] | None) -> list[Measured] | None:
        """The rows that were measured under these circumstances, the chosen one first."""
        if key is None:
            return None
        for kept in (self._on_disk(_name(key)), self._store.get(_name(key))):
            if kept is None:
                continue
            try:
                rows = [Measured.from_json(row) for row in json.loads(kept)["rows"]]
            except (ValueError, KeyError, TypeError) as exc:
                logger.warning("a kept choice of an engine can't be read (%s)", type(exc).__name__)
                continue
            if rows:
                return rows
        return None

    def store(self, key: dict[str, Any] | None, rows: list[Measured]) -> None:
        """Replaces what was kept under these circumstances, at once and wholly.

        Rows of which none is chosen, or of which one failed, are not kept: a full disk or memory
        that was short may have been chance, and the next start tries again.
        """
        if key is None or not rows or not rows[0].chosen:
            return
        if any(row.verdict.startswith("failed") for row in rows):
            logger.warning(
                "an engine failed, so the next start measures again; `rayclassify doctor`"
            )
            return
        content = json.dumps({**key, "rows": [row.to_json() for row in rows]}, indent=1)
        self._store.put(_name(key), content)
        if self._directory is None:
            return
        try:
            write_wholly(self._directory / f"{_name(key)}.json", content)
        except OSError as exc:
            logger.warning("the choice of an engine can't be cached (%s)", type(exc).__name__)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Replicas that start together on one node would disturb each other's measurements."""
        lock = None
        if self._directory is not None:
            lock = filelock.FileLock(self._directory.parent / "choices.lock")
            try:
                lock.acquire(timeout=LOCK_TIMEOUT_S)
            except (filelock.Timeout, OSError, NotImplementedError) as exc:
                logger.warning("measuring without a lock (%s)", type(exc).__name__)
                lock = None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _on_disk(self, name: str) -> str | None:
        if self._directory is None:
            return None
        try:
            return (self._directory / f"{name}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            logger.warning("a kept choice of an engine can't be read (%s)", type(exc).__name__)
            return None


def _name(key: dict[str, Any]) -> str:
    canonical = json.dumps(key, sort_keys=True, default=list)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _gpus() -> list[str]:
    """What tells one GPU node from another without asking torch."""
    found = sorted(str(path) for path in Path("/proc/driver/nvidia/gpus").glob("*"))
    models = []
    for path in found:
        try:
            lines = (Path(path) / "information").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        models += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    # Which of them a replica may use is another each time; how many is what counts.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [*models, f"visible={None if visible is None else len(visible.split(','))}"]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
