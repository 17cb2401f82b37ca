"""The logs of the last runs: kept however a run ends, within so many runs and bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from deployments.launch import processes
from deployments.launch.targets import state_dir

LOG_FILE = "serve.log"
"""What `serve run` printed."""
OWNER_FILE = "owner"
"""In a run's directory: which launcher it belongs to, as `processes.owner_name` says."""

RUN_DIRS = Path("/tmp")  # noqa: S108, as environment.new_run_dir has it

# 10 runs of 50 MB each are 500 MB at most. Of a file the end is kept: it says how the run ended.
RUNS = 10
RUN_BYTES = 50_000_000
FILE_BYTES = 10_000_000


def kept_runs() -> list[Path]:
    """The directories of kept runs, the newest first."""
    return sorted(home().glob("2*"), reverse=True)


def keep(run_dir: Path, at_most: int = RUNS) -> Path | None:
    """Puts a run's logs aside, deletes its directory and the oldest kept runs.

    None: it could not be written, and the run's directory stays; or none is to be kept.
    """
    began = datetime.fromtimestamp((run_dir / OWNER_FILE).stat().st_mtime, UTC)
    kept = home() / f"{began:%Y-%m-%dT%H-%M-%SZ}-{run_dir.name.rpartition('-')[2]}"
    try:
        home().mkdir(parents=True, exist_ok=True)
        home().chmod(0o700)
        left = RUN_BYTES
        for source, name in _logs_of(run_dir):
            left -= _copy_end(source, kept / name, min(FILE_BYTES, left))
            if left <= 0:
                break
    except OSError:
        return None
    shutil.rmtree(run_dir, ignore_errors=True)
    for old in kept_runs()[at_most:]:
        shutil.rmtree(old, ignore_errors=True)
    return kept if kept.is_dir() else None


def keep_what_died(at_most: int = RUNS) -> None:
    """The same for runs of this user whose launcher was killed, once no process of theirs lives."""
    for owner in RUN_DIRS.glob(f"rayclassify-*/{OWNER_FILE}"):
        with contextlib.suppress(OSError):
            mine = owner.stat().st_uid == os.getuid()
            if mine and processes.has_ended(owner.read_text(encoding="utf-8"), owner.parent):
                keep(owner.parent, at_most)


def home() -> Path:
    """Where kept runs are."""
    return state_dir() / "runs"


def _logs_of(run_dir: Path) -> Iterator[tuple[Path, str]]:
    """Files and their names in the kept run: the launcher's, Serve's, then the rest of Ray's, of
    which the last written come first."""
    yield run_dir / LOG_FILE, LOG_FILE
    for logs in sorted(run_dir.glob("ray/session_2*/logs")):
        files = [path for path in logs.rglob("*") if path.is_file() and not path.is_symlink()]
        files.sort(key=lambda path: (path.parent.name != "serve", -path.stat().st_mtime))
        for path in files:
            yield path, str(path.relative_to(logs))


def _copy_end(source: Path, target: Path, at_most: int) -> int:
    """Its last bytes, from the beginning of a line. Returns how many; empty files are left out."""
    size = source.stat().st_size if source.is_file() else 0
    if not size:
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as old, target.open("wb") as new:
        if size > at_most:
            old.seek(size - at_most)
            old.readline()
        copied = new.write(old.read(at_most))
    shutil.copystat(source, target)
    return copied
