"""The files of a run that has not ended: what the same command goes on from."""

from __future__ import annotations

from pathlib import Path

CHECKPOINT = "checkpoint.pt"
OPINIONS = "teacher.npz"
"""What a teacher said of each row."""


def partial_of(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_suffix(".partial")


# The checkpoint goes last, as it says that the rest may be half written.
_FILES = [name for kept in (OPINIONS, CHECKPOINT) for name in (partial_of(Path(kept)).name, kept)]
FILES = frozenset(_FILES)


def forget(out: Path) -> None:
    """Removes them."""
    for name in _FILES:
        (out / name).unlink(missing_ok=True)
