"""`rayclassify quantize`: a model that runs in 8 bits, held to its owner's own texts."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.distill import OutOption, SeparatorOption, SpeedsOption
from deployments.cli.evaluate import (
    EncodingOption,
    ForceOption,
    KindOption,
    LabelColumnOption,
    TextColumnOption,
    fail,
    read_table,
)
from deployments.cli.exit_codes import NO
from deployments.cli.shrinking import MIN_AGREEMENT, Job, table_of


def quantize(
    model: Annotated[str, typer.Argument(help="A model's directory or hub id.")],
    data: Annotated[str, typer.Option(help="Texts that the model was not trained on.")],
    out: OutOption,
    labels: Annotated[
        bool, typer.Option(help="--no-labels: texts alone, judged by agreement.")
    ] = True,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of texts that must keep their label.")
    ] = MIN_AGREEMENT,
    max_f1_loss: Annotated[
        float, typer.Option("--max-f1-loss", min=0, max=1, help="Of macro-F1, absolute.")
    ] = 0.01,
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    separator: SeparatorOption = None,
    speeds: SpeedsOption = True,
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Let a model run in 8 bits, if your own texts keep their labels.

    Weights are rounded per output, activations per call, by the engine. The directory is an
    ordinary model in 16 bits, with quantization.json: the service then takes int8 on CPUs, and runs
    it in full precision where it is slower, or can't be had. Nothing is written beyond the limits.

    Example: `rayclassify quantize ./mine --data held-out.csv --out ./mine-int8`
    """
    job = Job(
        out, force, data, None, text_column, label_column, separator, kind, encoding, (model,)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with job.errors(), tempfile.TemporaryDirectory(dir=out.parent, prefix=".quantize-") as scratch:
        from deployments.optimise.card import Card
        from deployments.optimise.finetuning import targets_of
        from deployments.optimise.labelled import Labelled, check_known
        from deployments.optimise.quantizing import (
            FLOAT32,
            INT8,
            Limits,
            compared,
            pin,
            written,
        )
        from deployments.optimise.running import CandidateFailed
        from deployments.optimise.shrunk import beside

        if labels:
            rows = read_table(data, text_column, label_column, kind, encoding, separator)
        else:
            texts = job.texts(data)
            rows = Labelled(texts, [""] * len(texts))
        for note in rows.notes:
            job.say.print(f"warning: {note}")
        made, limits = Path(scratch) / "model", Limits(min_agreement, max_f1_loss)
        names, task = written(model, made, separator)
        if labels:
            check_known(rows, model, names, separator)
        job.say.print(f"{len(rows):,} texts, in float32 and in int8")
        try:
            gold = targets_of(rows, names, task) if labels else None
            with job.say.status("asking both"):
                found = compared(model, made, rows.texts, task, gold)
        except CandidateFailed as exc:
            fail(job.say, f"nothing is written. {exc}", NO)
        if reasons := found.refusals(limits):
            fail(job.say, f"nothing is written: {'; '.join(reasons)}.", NO)
        pin(made, found, limits)
        with job.say.status("measuring both"):
            both = beside(
                model, made, found.logits, found.gold, task, rows.texts,
                FLOAT32 if speeds else None, INT8,
            )  # fmt: skip
        job.out.print(table_of(both, (f"on {len(rows):,} texts", "float32", "int8")))
        Card(
            title="A model in 8 bits",
            base=model,
            command="rayclassify " + shlex.join(sys.argv[1:]),
            data=[("held out", rows)],
            labels=names,
            recipe=[
                ("weights", "int8 when loaded, a scale for each output; 16 bits on disk"),
                ("activations", "8 bits, by their range in each call"),
                ("embeddings, norms, head", "float32"),
                ("agreement must be", f"{min_agreement:.2%} at least"),
                ("macro-F1 may lose", f"{max_f1_loss:g}"),
            ],
            figures=[*both.figures(), ("largest move of a logit", f"{found.drift:.3f}")],
            notes=[
                "Speeds are of one process on the machine named above, without a service.",
                *([] if labels else ["The rows had no labels: float32's own stand for them."]),
                "The original's limits and licence hold for it too.",
            ],
        ).write(made)
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
        job.out.print(f"{out} written.")
