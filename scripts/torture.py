"""Try to break the service; write docs/reliability.json and the page made of it.

Everything runs on this machine and is ended again. Ctrl-C stops what was started and keeps what
was found.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments import installing
from scripts.bench.store import Store
from tests.trials.command import run
from tests.trials.report import IMAGES, page
from tests.trials.session import Session

DOCS = Path(__file__).resolve().parents[1] / "docs"

console = Console()
app = typer.Typer(add_completion=False)


def modes() -> dict[str, Callable[[Session], None]]:
    """Mode → what tries it. Imported late, for a quick --help."""
    from tests.trials.access import try_access
    from tests.trials.autoscaling import try_autoscaling
    from tests.trials.faults import try_faults
    from tests.trials.inputs import try_inputs
    from tests.trials.model_updates import try_models
    from tests.trials.overload import try_overload
    from tests.trials.pretended_gpus import try_gpus
    from tests.trials.privacy import try_privacy
    from tests.trials.soak import try_soak

    return {
        "overload": try_overload,
        "faults": try_faults,
        "models": try_models,
        "inputs": try_inputs,
        "access": try_access,
        "privacy": try_privacy,
        "autoscaling": try_autoscaling,
        "gpus": try_gpus,
        "soak": try_soak,
    }


@app.command()
def main(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODE]...",
            help="overload: far more than it can answer. "
            "faults: parts of a cluster killed, frozen, poisoned, updated. "
            "models: updates from one model to another, and ones that fail. "
            "inputs: bad input of every kind. "
            "access: wrong keys, scopes, rates, keys that change. "
            "privacy: texts that must be seen nowhere. "
            "autoscaling: loads that need a second Classifier, and such that don't. "
            "gpus: 1 to 8 Classifiers on pretended GPUs, beside Serve's own policy. "
            "soak: an hour of mixed traffic in waves; memory and open files of all processes. "
            "all by default. report: the page again, from the JSON.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds where it would be minutes: a try.")
    ] = False,
    minutes: Annotated[float, typer.Option(help="How long the soak lasts.")] = 60.0,
    output: Annotated[Path, typer.Option(help="JSON to add to.")] = DOCS / "reliability.json",
) -> None:
    """Try to break the service, then say which promises it kept.

    Exit code 0; 1: a promise was not kept; 130: stopped.

    Example: `python scripts/torture.py inputs --quick --output /tmp/reliability.json`
    """
    store = Store(output)

    def publish() -> None:
        output.with_suffix(".md").write_text(page(store.modes), encoding="utf-8")
        draw(store)

    run(modes(), what, Session(store, console, quick, minutes), publish)


def draw(store: Store) -> None:
    """The soak's plot, if there is a soak and matplotlib is installed."""
    part = store.modes.get("soak", {})
    if not part.get("figures", {}).get("minutes"):
        return
    try:
        from tests.trials.plots import draw_soak

        draw_soak(part, store.path.parent / IMAGES)
    except ImportError:
        console.print(f"No plot: matplotlib is not installed; {installing('plots')} brings it.")


if __name__ == "__main__":
    app()
