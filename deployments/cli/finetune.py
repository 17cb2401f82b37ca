"""`rayclassify finetune`: a classifier of the user's own, from labelled rows."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.cli.evaluate import (
    EncodingOption,
    ForceOption,
    KindOption,
    LabelColumnOption,
    TextColumnOption,
    read_table,
)
from deployments.cli.model_directory import check_free
from deployments.cli.training_errors import told

if TYPE_CHECKING:
    from deployments.optimise.finetuning import Data, Finetuned, Task
    from deployments.optimise.training import Recipe, Told

_MANY_UNKNOWN = 0.05
_MOST_SHOWN = 22


def finetune(
    data: Annotated[str, typer.Option(help="Labelled texts to learn from.")],
    base: Annotated[str, typer.Option(help="The encoder to start from: a directory or hub id.")],
    out: Annotated[Path, typer.Option(help="The model's directory, which is made.")],
    validation: Annotated[
        str | None,
        typer.Option(help="Labelled texts to choose by; a tenth of --data where there is none."),
    ] = None,
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    pair_column: Annotated[
        str | None, typer.Option(help="The column with the second text, of pairs.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option("--label-separator", help="Several labels a text: a;b, say.")
    ] = None,
    regression: Annotated[bool, typer.Option("--regression", help="Labels are numbers.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Rounds over all rows, at most.")] = 4,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-7, max=1.0, help="5e-5 by default; 5e-4 with --lora-rank."),
    ] = None,
    batch_tokens: Annotated[int, typer.Option(min=16, help="Tokens of a batch.")] = 1_024,
    max_length: Annotated[int, typer.Option(min=8, help="Longer texts are cut.")] = 256,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without gain before it ends.")] = 2,
    class_weights: Annotated[
        str, typer.Option(help="none, or balanced: a rare label counts as much as a frequent one.")
    ] = "none",
    lora_rank: Annotated[
        int | None,
        typer.Option(min=1, help="Train low-rank updates only, merged at the end: less memory."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the weights on disk: float16, float32.")
    ] = "float16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Train a classifier on labelled rows: a directory that the service loads.

    Validation is asked after each epoch; the best weights are kept. A run that was killed goes on
    when it is asked for again. A card with figures and recipe is written beside the model.

    Example: `rayclassify finetune --data train.csv --base ./encoder --out ./mine`
    """
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if separator is not None and regression:
        raise typer.BadParameter("leave it out with --regression.", param_hint="--label-separator")
    if class_weights not in ("none", "balanced"):
        raise typer.BadParameter("none or balanced", param_hint="--class-weights")
    if dtype not in ("float16", "float32"):
        raise typer.BadParameter("float16 or float32", param_hint="--dtype")
    check_free(out, force, (base, data, validation))
    from deployments.optimise.bases import ordered_as
    from deployments.optimise.finetuning import Data, Task, advice, held_out, names_of
    from deployments.optimise.finetuning import finetune as run
    from deployments.optimise.labelled import check_known, without
    from deployments.optimise.training import Recipe
    from deployments.optimise.unfinished import forget
    from deployments.pipeline.tasks.text_classification import MULTI_LABEL, REGRESSION, SINGLE_LABEL

    task = Task(
        REGRESSION if regression else SINGLE_LABEL if separator is None else MULTI_LABEL,
        separator,
        class_weights == "balanced",
        lora_rank,
    )
    rate = learning_rate or (5e-4 if lora_rank else 5e-5)
    recipe = Recipe(
        epochs=epochs,
        learning_rate=rate,
        batch_tokens=batch_tokens,
        max_length=max_length,
        patience=patience,
        seed=seed,
    )

    def table(path: str) -> Any:
        return read_table(
            path, text_column, label_column, kind, encoding, separator, pair_column, regression
        )

    with told(say, out):
        rows = table(data)
        if validation is None:
            one_each = task.problem_type == SINGLE_LABEL
            learnt, chosen = held_out(rows, seed, one_each, separator)
        else:
            chosen = table(validation)
            learnt = without(rows, chosen, data, validation)
        labels = names_of(learnt, task)
        if not regression:
            labels = ordered_as(base, labels)
            check_known(chosen, data, labels, separator)
        for note in (*learnt.notes, *chosen.notes, *advice(learnt, labels, task)):
            say.print(f"warning: {note}")
        parts = Data(learnt, chosen, labels)
        say.print(f"{len(learnt):,} rows to learn from, {len(chosen):,} to choose by")
        with training_bar(say) as tell:
            found = run(base, parts, task, recipe, out, dtype == "float16", device, tell, force)
    _say(found, labels, dtype, task, say)
    _card(base, parts, task, recipe, found, (data, validation)).write(out)
    forget(out)
    Console(highlight=False, soft_wrap=True, markup=False).print(f"{out} written.")
    say.print(
        f"Next: rayclassify evaluate {out} --data <rows it never saw>; rayclassify calibrate {out} "
        f"--data <others>; then model: {{id: {out}}} in serve_config.yaml"
    )


class training_bar:
    """A bar on a terminal; a line an epoch elsewhere."""

    def __init__(self, say: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._say = say
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} batches, loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=say,
            transient=True,
            disable=not say.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, epoch=1, loss=0.0)

    def __enter__(self) -> Any:
        self._bar.start()
        return self._tell

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def _tell(self, told: Told) -> None:
        if told.score is not None:
            self._say.print(f"epoch {told.epoch}: validation {told.score:.4f}")
            return
        self._bar.update(
            self._task,
            completed=told.step,
            total=told.steps,
            epoch=told.epoch,
            loss=told.loss,
        )


def _say(found: Finetuned, labels: Sequence[str], dtype: str, task: Task, say: Console) -> None:
    from deployments.optimise.figures import figures_of, never_given

    outcome = found.outcome
    if outcome.resumed:
        say.print("it went on from where an earlier run had come")
    if found.n_cut:
        say.print(f"warning: {found.n_cut:,} rows are longer than --max-length and were cut.")
    if found.unknown > _MANY_UNKNOWN:
        say.print(
            f"warning: {found.unknown:.0%} of the tokens are unknown to the base's tokenizer: is "
            "it of the texts' language?"
        )
    say.print(
        f"kept epoch {outcome.epoch} of {len(outcome.scores)}: {found.metric} "
        f"{outcome.scores[outcome.epoch - 1]:.4f} on validation, after {outcome.seconds:.0f} s; "
        f"{found.n_trained:,} of {found.n_parameters:,} weights trained"
    )
    if found.drift is not None:
        say.print(f"16-bit weights move a logit of validation by {found.drift:.4f} at most")
    elif dtype == "float16":
        say.print("the weights stay in 32 bits: 16 would move these numbers too far")
    if never := never_given(found.logits, task.problem_type, labels):
        say.print(
            f"warning: no text of validation gets {', '.join(map(repr, never[:5]))}"
            f"{' …' if len(never) > 5 else ''}: not learnt. More --epochs, more rows, "
            "--class-weights balanced or another --learning-rate may help."
        )
    figures = figures_of(found.logits, found.gold, task.problem_type, labels)
    table = Table("on validation, which chose the epoch", "", box=None)
    for name, value in figures[:_MOST_SHOWN]:
        table.add_row(escape(name), escape(value))
    say.print(table)
    if len(figures) > _MOST_SHOWN:
        say.print(f"… and {len(figures) - _MOST_SHOWN} more in README.md")


def _card(
    base: str,
    data: Data,
    task: Task,
    recipe: Recipe,
    found: Finetuned,
    names: tuple[str, str | None],
) -> Any:
    from dataclasses import asdict

    from deployments.optimise.card import Card
    from deployments.optimise.figures import figures_of

    outcome = found.outcome
    chosen = "a tenth of the same table, held out" if names[1] is None else "a table of its own"
    return Card(
        title=f"A {task.problem_type.replace('_', ' ')} model",
        base=base,
        command="rayclassify " + shlex.join(sys.argv[1:]),
        data=[("to learn from", data.train), (f"to choose by: {chosen}", data.validation)],
        labels=data.labels,
        recipe=[
            *((name, f"{value:g}" if isinstance(value, float) else str(value))
              for name, value in asdict(recipe).items()),
            ("class weights", "balanced" if task.balanced else "none"),
            ("LoRA rank", str(task.lora_rank or "none: all weights")),
            ("seconds", f"{outcome.seconds:.0f}"),
        ],
        figures=[
            (f"{found.metric} on validation, the best of {len(outcome.scores)} epochs",
             f"{outcome.scores[outcome.epoch - 1]:.4f}"),
            *figures_of(found.logits, found.gold, task.problem_type, data.labels),
            ("weights", f"{found.n_parameters:,}"),
        ],
        notes=[
            "Validation chose the epoch, so its figure flatters. `rayclassify evaluate` with rows "
            "that the model never saw gives an honest one, with intervals.",
            "It has learnt what these rows show. Answers to texts of another kind mean little.",
            "The licence of base model and data holds for it too.",
        ],
    )  # fmt: skip
