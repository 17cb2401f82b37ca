"""Modes by name, run one after the other, and which promises they found kept."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import typer
from rich.console import Console
from rich.table import Table

from scripts.bench.store import Store

from .session import Session

BROKEN = 1
"""Exit code: a promise was not kept."""


def run(
    known: Mapping[str, Callable[[Session], None]],
    what: Sequence[str] | None,
    session: Session,
    publish: Callable[[], None],
) -> NoReturn:
    """Tries the modes named in `what`, all for none, and exits; `report` names none.

    publish: writes the page. It is called whatever happens, after what was found is kept.

    Raises:
        typer.BadParameter: a mode is not known.
        typer.Exit: 0; BROKEN; 130 where Ctrl-C or SIGTERM stopped it.
    """
    todo = list(known) if what in (None, [], ["all"]) else list(dict.fromkeys(what or ()))
    if unknown := set(todo) - {*known, "report"}:
        raise typer.BadParameter(f"{min(unknown)!r}; modes: {', '.join(known)}, report, all")
    tried = [name for name in todo if name != "report"]
    stopped = False
    # As Ctrl-C: what was started ends in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for name in tried:
            known[name](session)
    except KeyboardInterrupt:
        stopped = True
        session.console.print("Stopped; what was found is kept.")
    finally:
        session.store.save()
        publish()
    kept = _show(session.console, session.store, tried or list(session.store.modes))
    raise typer.Exit(130 if stopped else 0 if kept else BROKEN)


def _show(console: Console, store: Store, names: list[str]) -> bool:
    """Prints the findings of these modes; whether every promise was kept."""
    table = Table("promise", "cases", "result", "")
    findings = [f for name in names for f in store.modes.get(name, {}).get("findings", [])]
    for finding in findings:
        word = "[green]kept" if finding["kept"] else "[red]broken"
        table.add_row(finding["promise"], f"{finding['cases']:,}", finding["result"], word)
    console.print(table)
    console.print(f"{store.path}, {store.path.with_suffix('.md')}", soft_wrap=True)
    return all(finding["kept"] for finding in findings)
