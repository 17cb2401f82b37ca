"""Whether each peer runs here, answers as transformers does, and what it does with long texts.

python -m scripts.bench.peers [NAME ...] [--model-dir DIR] [--dtype float32,bfloat16] [--wrk 5]
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..load import LoadFailed, load
from ..service import free_port
from ..workload import SEED, reviews
from . import PEERS, PeerUnavailable, running
from .agreement import expected_labels, labels_by
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
    texts = random.Random(SEED).sample(reviews(), num_texts)
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
                    port=free_port(in_a_row=3),
                ) as endpoint:
                    told = labels_by(endpoint, texts)
                    (long,) = labels_by(endpoint, [texts[0] * 600])
                    runs = [load(endpoint, texts, n, wrk_s) for n in (1, 16, 64) if wrk_s]
            except (PeerUnavailable, LoadFailed) as error:
                table.add_row(peer.name, precision, str(error), "", "")
                continue
            same = sum(a == b for a, b in zip(told, expected, strict=True))
            rates = " / ".join(f"{run.requests_per_s} ({run.errors} errors)" for run in runs)
            shown = f"{same} of {len(texts)}" if precision != "none" else "no model"
            table.add_row(peer.name, precision, shown, long, rates)
            console.print(f"  {peer.versions}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
