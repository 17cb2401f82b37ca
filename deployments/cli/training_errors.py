"""How a command that trains ends where it can't go on: a message and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from deployments.cli.evaluate import fail
from deployments.cli.exit_codes import NO, WRONG
from deployments.optimise.unfinished import CHECKPOINT


@contextmanager
def told(say: Console, out: Path) -> Iterator[None]:
    """What is wrong with tables, models and options is WRONG; what this machine lacks is NO."""
    from deployments.bulk.tables import BadTable
    from deployments.optimise.bases import BadBase
    from deployments.optimise.labelled import BadData
    from deployments.optimise.students import CannotShrink
    from deployments.optimise.training import Diverged, OtherRun
    from deployments.optimise.vocabulary import CannotTrim

    try:
        yield
    except (BadTable, BadData, BadBase, OtherRun, Diverged, CannotShrink, CannotTrim) as exc:
        fail(say, str(exc), WRONG)
    except ValueError as exc:  # a device that torch does not have
        fail(say, str(exc), NO)
    except OSError as exc:
        fail(say, f"{out} can't be written: {exc}.", NO)
    except KeyboardInterrupt:
        kept = (out / CHECKPOINT).exists()
        say.print(
            f"stopped; {out} keeps how far it came. Ask again to go on."
            if kept
            else "stopped before there was anything to keep."
        )
        raise typer.Exit(NO) from None
