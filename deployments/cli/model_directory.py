"""The directory that a command writes a model to: nothing that a person would miss is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from deployments.optimise.unfinished import FILES


def check_free(out: Path, force: bool, inputs: Sequence[str | None]) -> None:
    """inputs: models and tables that the command reads; hub ids may be among them.

    A model whose checkpoint lies beside it was killed while it was written: its run may go on.

    Raises:
        typer.BadParameter: `out` is a file, is or holds an input, or holds what stays there.
    """
    if out.exists() and not out.is_dir():
        raise _bad(f"{out} is a file; name a directory.")
    place = out.resolve()
    for one in filter(None, inputs):
        path = Path(one).resolve()
        if Path(one).exists() and (path == place or place in path.parents):
            raise _bad(f"{one} is read from there and would be lost: name another directory.")
    if not out.exists():
        return
    held = {path.name for path in out.iterdir()}
    if held <= FILES:
        return
    if "config.json" not in held:
        raise _bad(f"{out} holds files that are of no model: name another directory.")
    if not held & FILES and not force:
        raise _bad(f"{out} holds a model; --force replaces it.")


def clear(out: Path) -> None:
    """Removes the files of a model or of an unfinished run. Folders in it stay."""
    if out.exists():
        for path in out.iterdir():
            if not path.is_dir():
                path.unlink()


def _bad(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="--out")
