"""Converted models on disk: made once, whole or not at all, and made again where damaged.

<cache_dir()>/converted/<engine>-<dtype>-<key>/    what the engine wrote
                                                   checksums.json, SHA-256 of each file
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import filelock

from deployments.engines.choices import package_versions
from deployments.engines.cpu import cpu_features
from deployments.model.cache import cache_dir
from deployments.model.load import fingerprint
from deployments.settings import ModelSettings

logger = logging.getLogger(__name__)

# Changes whenever the same model would be converted differently.
_FORMAT = 4
_CHECKSUMS = "checksums.json"
# Older versions of packages and models leave theirs behind.
UNUSED_S = 30 * 24 * 3600.0

T = TypeVar("T")


def converted(
    model: ModelSettings,
    engine: str,
    dtype: str,
    convert: Callable[[Path], None],
    load: Callable[[Path], T],
) -> T:
    """What `load` makes of the directory that `convert` filled, now or at an earlier start.

    Kept by the model's content, the versions of all packages that take part and the CPU's features
    (quantisation depends on them). Replicas that start together convert once. What can't be loaded
    any more is made again. Where nothing can be kept, a temporary directory is used.

    Raises:
        whatever `convert` raises, and `load` on what `convert` has just made.
    """
    root, content = cache_dir(), fingerprint(model)
    if root is None or content is None:
        with tempfile.TemporaryDirectory(prefix="rayclassify") as directory:
            convert(Path(directory))
            return load(Path(directory))
    root = root / "converted"
    root.mkdir(exist_ok=True)
    key = json.dumps(
        [_FORMAT, content, model.max_length, package_versions(), cpu_features()],
        sort_keys=True,
    )
    name = f"{engine}-{dtype}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    with _lock(root / f"{name}.lock"):
        if (root / name).exists():
            try:
                _verify(root / name)
                os.utime(root / name)
                return load(root / name)
            except Exception as exc:
                # Whatever is wrong with it, the model itself is still there.
                logger.warning("a converted model is damaged (%s): again", type(exc).__name__)
                shutil.rmtree(root / name, ignore_errors=True)
        _forget_unused(root)
        _make(root / name, convert)
    return load(root / name)


def _make(directory: Path, convert: Callable[[Path], None]) -> None:
    # Beside its final place: a rename within one file system happens wholly or not at all.
    unfinished = Path(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))
    try:
        convert(unfinished)
        checksums = {path.name: _sha256(path) for path in sorted(unfinished.iterdir())}
        (unfinished / _CHECKSUMS).write_text(json.dumps(checksums), encoding="utf-8")
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _forget_unused(root: Path) -> None:
    """Deletes what no start has used for `UNUSED_S`. Who has it open keeps what it mapped."""
    for path in root.iterdir():
        with suppress(OSError):  # another replica was first
            if path.is_dir() and time.time() - path.stat().st_mtime > UNUSED_S:
                shutil.rmtree(path)
                logger.info("a converted model that was unused for 30 days is deleted")


def _verify(directory: Path) -> None:
    """Raises ValueError or OSError where a file is not what was written.

    Engines map weights into memory without a look: a file cut short would end the process later.
    """
    checksums = json.loads((directory / _CHECKSUMS).read_text(encoding="utf-8"))
    for name, expected in checksums.items():
        if _sha256(directory / name) != expected:
            raise ValueError(f"{name} is not what was written")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock(path: Path) -> filelock.BaseFileLock | nullcontext[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire()
        lock.release()
    except (OSError, NotImplementedError):  # a file system without locks: convert twice
        return nullcontext()
    return lock
