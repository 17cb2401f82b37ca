"""Files that a script renders and a test holds up to date: written, or only compared."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import typer
from rich.console import Console

console = Console(stderr=True)


def write_or_check(text: str, path: Path, script: str, *, check: bool, then: str = "") -> None:
    """Writes `text`; or, to `check`, prints how the file differs from it and exits with 1.

    then: what to do with what was written, for the one who reads it.
    """
    if not check:
        path.write_text(text, encoding="utf-8")
        console.print(f"{os.path.relpath(path)} written{then}", soft_wrap=True)
        return
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if old != text:
        lines = difflib.unified_diff(
            old.splitlines(), text.splitlines(), "on disk", "rendered", lineterm=""
        )
        print("\n".join(lines))
        console.print(f"[red]{path.name} is stale; run {script}[/red]")
        raise typer.Exit(1)
