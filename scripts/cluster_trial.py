"""Try the service on several machines; write docs/cluster.json and the page made of it.

Everything runs on this machine and is ended again. All but `nodes` takes root, for network
namespaces, and redis-server.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from scripts.bench.store import Store
from tests.trials.cluster_page import page
from tests.trials.command import run
from tests.trials.session import Session

DOCS = Path(__file__).resolve().parents[1] / "docs"

console = Console()
app = typer.Typer(add_completion=False)


def modes() -> dict[str, Callable[[Session], None]]:
    """Mode → what tries it. Imported late, for a quick --help."""
    from tests.trials.failover import try_failover
    from tests.trials.network import try_network
    from tests.trials.nodes import try_losses, try_nodes, try_scaling
    from tests.trials.surge import try_surge

    return {
        "nodes": try_nodes,
        "losses": try_losses,
        "scaling": try_scaling,
        "surge": try_surge,
        "network": try_network,
        "failover": try_failover,
    }


def write_page(store: Store, path: Path) -> None:
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(page(store.modes, before), encoding="utf-8")


@app.command()
def main(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODE]...",
            help="nodes: where replicas run on seven nodes; updates. "
            "losses: a GPU node and a CPU node of the seven killed. "
            "scaling: 1 to 8 Classifiers on them and back. "
            "surge: an update that finds room, and one that does not. "
            "network: 5 ms and 1 % loss before a worker, and one cut off. "
            "failover: the head killed under load, its state in Redis or not. "
            "all by default. report: the page again, from the JSON.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds where it would be minutes: a try.")
    ] = False,
    output: Annotated[Path, typer.Option(help="JSON to add to.")] = DOCS / "cluster.json",
) -> None:
    """Try the service on several machines, then say which promises it kept.

    Exit code 0; 1: a promise was not kept; 130: stopped.

    Example: `python scripts/cluster_trial.py failover --output /tmp/cluster.json`
    """
    known, store = modes(), Store(output)

    def publish() -> None:
        store.modes = {name: store.modes[name] for name in known if name in store.modes}
        store.save()
        write_page(store, output.with_suffix(".md"))

    run(known, what, Session(store, console, quick), publish)


if __name__ == "__main__":
    app()
