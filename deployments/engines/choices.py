"""Choices of engines on disk: when they still hold, and one measurer at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

from deployments.engines.cpu import cpu_features, cpu_model
from deployments.engines.measurement import BUSY, PROCESS, Measured
from deployments.model.cache import cache_dir, write_wholly
from deployments.model.load import fingerprint
from deployments.settings import EngineSettings, ModelSettings

logger = logging.getLogger(__name__)

# Longer than a measurement may take: who waited this long measures beside the other.
LOCK_TIMEOUT_S = 600.0
# Replicas that start together, and a restart, need not measure again; the next day's start does.
DISTURBED_S = 3600.0
_PACKAGES = ("rayclassify", "torch", "transformers", "numpy", "openvino", "nncf")
# Changes whenever rows would be read or judged differently.
_FORMAT = 3


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
        "packages": package_versions(),
    }


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that run models; None for those that are not installed."""
    return {name: _version(name) for name in _PACKAGES}


_BY_CHANCE = tuple(f"failed: {what}" for what in ("OSError", "MemoryError", PROCESS))


class Choices:
    """What was measured under which circumstances. Without a directory to write to it keeps
    nothing, and says so once in the log."""

    def __init__(self) -> None:
        directory = cache_dir()
        self._directory = directory and directory / "choices"
        if directory is None:
            logger.warning(
                "no directory to cache the choice of an engine in: it is measured at each start. "
                "Set RAYCLASSIFY_CACHE_DIR to one, or args.engine's name and dtype."
            )

    def read(self, key: dict[str, Any] | None) -> list[Measured] | None:
        """The rows that were measured under these circumstances, the chosen one first."""
        if self._directory is None or key is None:
            return None
        try:
            kept = json.loads(self._path(key).read_text(encoding="utf-8"))
            if (kept["good_until"] or math.inf) < time.time():
                return None
            rows = [Measured.from_json(row) for row in kept["rows"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            logger.warning("the cached choice of an engine can't be read (%s)", type(exc).__name__)
            return None
        return rows or None

    def store(self, key: dict[str, Any] | None, rows: list[Measured]) -> None:
        """Replaces what was kept under these circumstances, at once and wholly.

        Rows of which none is chosen, or that a busy machine cut short, are not kept: the next start
        tries again. Where other work on this machine disturbed one, or one failed as it may by
        chance (a full disk, memory that was short), they hold for `DISTURBED_S`.
        """
        if self._directory is None or key is None or not rows or not rows[0].chosen:
            return
        if any(row.verdict == BUSY for row in rows):
            return
        good_until = None
        if any(row.disturbed for row in rows):
            good_until = time.time() + DISTURBED_S
            logger.warning(
                "other work had the CPU while engines were measured: this choice holds an hour, "
                "then a start measures again. Set args.engine's name and dtype to measure no more."
            )
        elif any(row.verdict.startswith(_BY_CHANCE) for row in rows):
            good_until = time.time() + DISTURBED_S
            logger.warning(
                "an engine failed as it may by chance: this choice holds an hour, then a start "
                "measures again. `rayclassify doctor` shows which."
            )
        content = json.dumps(
            {**key, "good_until": good_until, "rows": [row.to_json() for row in rows]}, indent=1
        )
        try:
            write_wholly(self._path(key), content)
        except OSError as exc:
            logger.warning("the choice of an engine can't be cached (%s)", type(exc).__name__)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Replicas that start together on one node would disturb each other's measurements."""
        lock = self._lock()
        if lock is None:
            yield
            return
        with lock:
            yield

    def _lock(self) -> filelock.BaseFileLock | None:
        if self._directory is None:
            return None
        lock = filelock.FileLock(self._directory.parent / "choices.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            logger.info("another replica is measuring engines; waiting for it")
        except (OSError, NotImplementedError) as exc:
            logger.warning("no lock for measuring engines (%s)", type(exc).__name__)
            return None
        else:
            return lock
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except (filelock.Timeout, OSError) as exc:
            logger.warning("measuring without the lock (%s)", type(exc).__name__)
            return None
        return lock

    def _path(self, key: dict[str, Any]) -> Path:
        assert self._directory is not None  # noqa: S101 - callers looked
        canonical = json.dumps(key, sort_keys=True, default=list)
        return self._directory / f"{hashlib.sha256(canonical.encode()).hexdigest()[:32]}.json"


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
    return [*models, f"visible={os.environ.get('CUDA_VISIBLE_DEVICES')}"]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
