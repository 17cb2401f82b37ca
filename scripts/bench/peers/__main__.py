"""Whether each peer runs here, answers as transformers does, and what it does with long texts.

python -m scripts.bench.peers [NAME ...] [--model-dir DIR] [--dtype float32,bfloat16] [--wrk 5]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from . import PEERS, PeerUnavailable, running
from .agreement import agreement, ask, expected_labels, free_ports, reviews, throughput
from .peer import ROOT

console = Console()


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Peers; all if none is named.")] = None,
    model_dir: Annotated[Path, typer.Option(help="Model directory.")] = ROOT / "models" / "demo",
    dtype: Annotated[str, typer.Option(help="Precisions, separated by commas.")] = "float32",
    num_texts: Annotated[int, typer.Option(help="Reviews to compare labels on.", min=1)] = 50,
    num_threads: Annotated[int, typer.Option(help="Threads of each peer's model.", min=1)] = 2,
    wrk_s: Annotated[int, typer.Option(help="Seconds of load at 1, 16 and 64 connections.")] = 0,
) -> None:
    """Try the benchmark's PEERS one after the other."""
    texts = reviews(num_texts)
    expected = expected_labels(model_dir, texts)
    table = Table("peer", "precision", "labels as transformers'", "text over 512 tokens", "req/s")
    for peer in PEERS:
        for precision in dtype.split(","):
            if (names and peer.name not in names) or precision not in peer.dtypes:
                continue
            console.print(f"{peer.title}, {precision}", highlight=False)
            try:
                with running(
                    peer,
                    model_dir=model_dir,
                    dtype=precision,
                    num_threads=num_threads,
                    port=free_ports(3),
                ) as endpoint:
                    same = agreement(endpoint, texts, expected)
                    long = ask(endpoint, texts[0] * 600)
                    rates = throughput(endpoint, texts, wrk_s) if wrk_s else ""
            except PeerUnavailable as error:
                table.add_row(peer.name, precision, str(error), "", "")
                continue
            shown = f"{same} of {len(texts)}" if precision != "none" else "no model"
            table.add_row(peer.name, precision, shown, long, rates)
            console.print(f"  {peer.versions}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
