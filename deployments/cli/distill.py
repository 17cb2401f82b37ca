"""`rayclassify distill`, `prune` and `trim`: a smaller model of a larger one."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deployments.cli.evaluate import (
    DtypeOption,
    EncodingOption,
    EngineOption,
    ForceOption,
    KindOption,
    LabelColumnOption,
    TextColumnOption,
    engine_settings,
    read_table,
)
from deployments.cli.finetune import training_bar

if TYPE_CHECKING:
    from deployments.optimise.distilling import Distilled, Lesson
    from deployments.optimise.labelled import Labelled
    from deployments.optimise.shrunk import Beside
    from deployments.optimise.training import Recipe

OutOption = Annotated[Path, typer.Option(help="The smaller model's directory, which is made.")]
ValidationOption = Annotated[
    str | None,
    typer.Option(help="Labelled texts to choose by; a tenth of --data where there is none."),
]
UnlabelledOption = Annotated[
    str | None, typer.Option(help="A table of more texts, without labels. The more the better.")
]
SeparatorOption = Annotated[
    str | None, typer.Option("--label-separator", help="Several labels a text: a;b, say.")
]
EpochsOption = Annotated[int, typer.Option(min=1, help="Rounds over all texts, at most.")]
RateOption = Annotated[float, typer.Option(min=1e-7, max=1.0)]
BatchOption = Annotated[int, typer.Option(min=16, help="Tokens of a batch.")]
LengthOption = Annotated[int, typer.Option(min=8, help="Longer texts are cut.")]
SpeedsOption = Annotated[bool, typer.Option(help="Measure both: wants a quiet machine.")]
SeedOption = Annotated[int, typer.Option(min=0)]


def distill(
    teacher: Annotated[str, typer.Argument(help="The larger model: a directory or hub id.")],
    data: Annotated[str, typer.Option(help="Labelled texts to learn from.")],
    out: OutOption,
    layers: Annotated[
        int | None, typer.Option(min=1, help="A student of so many of the teacher's layers.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Or any model: a directory or hub id, with its tokenizer.")
    ] = None,
    unlabelled: UnlabelledOption = None,
    validation: ValidationOption = None,
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    separator: SeparatorOption = None,
    epochs: EpochsOption = 6,
    learning_rate: RateOption = 1e-4,
    batch_tokens: BatchOption = 1_024,
    max_length: LengthOption = 256,
    seed: SeedOption = 0,
    speeds: SpeedsOption = True,
    engine: EngineOption = "auto",
    dtype: DtypeOption = "auto",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Teach a small model to answer as a large one does.

    The teacher's opinion of each text is asked once. The student learns it, the rows' labels and,
    where both read the same tokens, the teacher's last hidden state. A run that was killed goes on
    when it is asked for again.

    Example: `rayclassify distill ./large --layers 2 --data train.csv --unlabelled more.csv --out
    ./small`
    """
    if (layers is None) == (student is None):
        raise typer.BadParameter("give one of them: --layers or --student.", param_hint="--layers")
    job = _Job(out, force, data, validation, text_column, label_column, separator, kind, encoding)
    with job.errors():
        from deployments.optimise.distilling import load
        from deployments.optimise.students import evenly, layers_of, with_layers

        large, tokenizer = load(teacher)
        lesson = job.lesson(teacher, large, unlabelled)
        if student is not None:
            small, own_tokenizer = _student(student, large)
            made = f"started from {student}"
        else:
            kept = evenly(len(layers_of(large)), layers or 1)
            small, own_tokenizer = with_layers(large, kept), tokenizer
            made = f"started from layers {', '.join(map(str, kept))} of the teacher's"
        recipe = job.recipe(epochs, learning_rate, batch_tokens, max_length, seed)
        found = job.train(large, tokenizer, small, own_tokenizer, lesson, recipe, made)
        job.end(
            teacher, found, lesson, recipe, made, engine_settings(engine, dtype) if speeds else None
        )


def prune(
    model: Annotated[str, typer.Argument(help="The model to cut: a directory or hub id.")],
    data: Annotated[str, typer.Option(help="Labelled texts, to tell what matters and to recover.")],
    out: OutOption,
    ffn: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of feed-forward neurons to keep.")
    ] = 1.0,
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers to keep, as evenly as can be.")
    ] = None,
    unlabelled: UnlabelledOption = None,
    validation: ValidationOption = None,
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    separator: SeparatorOption = None,
    epochs: EpochsOption = 3,
    learning_rate: RateOption = 5e-5,
    batch_tokens: BatchOption = 1_024,
    max_length: LengthOption = 256,
    seed: SeedOption = 0,
    speeds: SpeedsOption = True,
    engine: EngineOption = "auto",
    dtype: DtypeOption = "auto",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Cut layers and feed-forward neurons off a model, and teach it to answer as before.

    The neurons that matter least to the loss go, measured on rows of --data. The result is an
    ordinary model of the same class, smaller and faster on any engine. Heads stay: transformers'
    classes tie their width to the model's.

    Example: `rayclassify prune ./mine --ffn 0.5 --layers 4 --data train.csv --out ./pruned`
    """
    if ffn == 1.0 and layers is None:
        raise typer.BadParameter("nothing is cut: give --ffn or --layers.", param_hint="--ffn")
    job = _Job(out, force, data, validation, text_column, label_column, separator, kind, encoding)
    with job.errors():
        from deployments.optimise.distilling import load
        from deployments.optimise.pruning import narrowed
        from deployments.optimise.students import evenly, layers_of, with_layers

        large, tokenizer = load(model)
        lesson = job.lesson(model, large, unlabelled)
        small, made = large, []
        if layers is not None:
            kept = evenly(len(layers_of(large)), layers)
            small = with_layers(large, kept)
            made.append(f"layers {', '.join(map(str, kept))} kept")
        recipe = job.recipe(epochs, learning_rate, batch_tokens, max_length, seed)
        if ffn < 1.0:
            small, width = narrowed(small, tokenizer, lesson.labelled, ffn, recipe, separator)
            made.append(f"{width} feed-forward neurons a layer kept")
        said = "; ".join(made)
        found = job.train(large, tokenizer, small, tokenizer, lesson, recipe, said)
        job.end(
            model, found, lesson, recipe, said, engine_settings(engine, dtype) if speeds else None
        )


def trim(
    model: Annotated[str, typer.Argument(help="A model's directory or hub id.")],
    data: Annotated[str, typer.Option(help="A table of texts such as the model will be asked.")],
    out: OutOption,
    text_column: TextColumnOption = "text",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Cut a vocabulary to the tokens that some texts use, and the embeddings with it.

    Such texts get the same logits as before. Others are spelt in smaller pieces, so give many: a
    tenth is held out to show how many change. Single characters and special tokens stay.

    Example: `rayclassify trim ./mine --data texts.csv --out ./trimmed`
    """
    job = _Job(out, force, data, None, text_column, text_column, None, kind, encoding)
    with job.errors():
        from deployments.optimise.distilling import load
        from deployments.optimise.finetuning import save
        from deployments.optimise.vocabulary import share_unchanged
        from deployments.optimise.vocabulary import trim as cut

        large, tokenizer = load(model)
        texts = job.texts(data)
        n = max(1, len(texts) // 10)
        found = cut(large, tokenizer, texts[n:])
        job.say.print(
            f"{len(found.kept):,} of {len(tokenizer):,} tokens kept; of {n:,} texts held out "
            f"{share_unchanged(tokenizer, found, texts[:n]):.1%} keep their tokens"
        )
        found = cut(large, tokenizer, texts)
        save(found.model, found.tokenizer, out)
        before, after = (one.num_parameters() for one in (large, found.model))
        job.say.print(
            f"with all texts {len(found.kept):,}; weights: {before:,} before, {after:,} after"
        )
        job.out.print(f"{out} written.")


class _Job:
    """What the three commands share: tables in, errors told, figures and a card out."""

    def __init__(
        self,
        out: Path,
        force: bool,
        data: str,
        validation: str | None,
        text_column: str,
        label_column: str,
        separator: str | None,
        kind: str | None,
        encoding: str,
    ) -> None:
        if (out / "config.json").exists() and not force:
            raise typer.BadParameter(
                f"{out} holds a model; --force replaces it.", param_hint="--out"
            )
        self._directory, self._force, self._separator = out, force, separator
        self._data, self._validation = data, validation
        self._columns = (text_column, label_column, kind, encoding)
        self.say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        self.out = Console(highlight=False, soft_wrap=True, markup=False)

    def errors(self) -> Any:
        from deployments.cli.training_errors import told

        return told(self.say, self._directory)

    def lesson(self, name: str, model: Any, unlabelled: str | None) -> Lesson:
        """The tables. Raises BadTable, BadData."""
        from deployments.optimise.distilling import Lesson, labels_of, task_of
        from deployments.optimise.finetuning import held_out
        from deployments.optimise.labelled import BadData, check_known, without
        from deployments.pipeline.tasks.text_classification import (
            MULTI_LABEL,
            REGRESSION,
            SINGLE_LABEL,
        )

        task = task_of(model)
        if (task.problem_type == MULTI_LABEL) != (self._separator is not None):
            needs = "say" if self._separator is None else "leave out"
            raise BadData(f"{name} is a {task.problem_type} model: {needs} --label-separator.")
        rows = self._table(self._data, task.problem_type == REGRESSION)
        if self._validation is None:
            learnt, chosen = held_out(rows, 0, task.problem_type == SINGLE_LABEL)
        else:
            chosen = self._table(self._validation, task.problem_type == REGRESSION)
            learnt = without(rows, chosen, self._data, self._validation)
        if task.problem_type != REGRESSION:
            for one in (learnt, chosen):
                check_known(one, name, labels_of(model), self._separator)
        more = [] if unlabelled is None else self.texts(unlabelled)
        known = {" ".join(text.split()) for text in (*learnt.texts, *chosen.texts)}
        fresh = [text for text in more if " ".join(text.split()) not in known]
        for note in (*learnt.notes, *chosen.notes):
            self.say.print(f"warning: {note}")
        self.say.print(
            f"{len(learnt):,} rows to learn from, {len(fresh):,} more texts, "
            f"{len(chosen):,} rows to choose by"
        )
        if self._force and self._directory.exists():
            shutil.rmtree(self._directory)
        return Lesson(learnt, fresh, chosen)

    def texts(self, path: str) -> list[str]:
        """Of a table without labels, each once. Raises BadTable, BadData."""
        from deployments.bulk.columns import check_there
        from deployments.bulk.tables import opened
        from deployments.optimise.labelled import BadData

        column, _, kind, encoding = self._columns
        from deployments.bulk.tables import format_of

        found: dict[str, None] = {}
        with opened(path, format_of(path, kind), encoding) as table:  # type: ignore[arg-type]
            if table.columns is not None:
                check_there((column,), table.columns)
            for row in table.rows:
                text = row.fields.get(column)
                if row.fault is None and isinstance(text, str) and text.strip():
                    found.setdefault(text)
        if len(found) < 2:
            raise BadData(f"{path} has {len(found)} texts in the column {column}.")
        return list(found)

    def recipe(
        self, epochs: int, rate: float, batch_tokens: int, max_length: int, seed: int
    ) -> Recipe:
        from deployments.optimise.training import Recipe

        return Recipe(
            epochs=epochs,
            learning_rate=rate,
            batch_tokens=batch_tokens,
            max_length=max_length,
            seed=seed,
        )

    def train(
        self,
        large: Any,
        tokenizer: Any,
        small: Any,
        own_tokenizer: Any,
        lesson: Lesson,
        recipe: Recipe,
        made: str,
    ) -> Distilled:
        from deployments.optimise.distilling import distill

        self.say.print(
            f"{made}: {small.num_parameters():,} of {large.num_parameters():,} weights; asks the "
            "larger model first"
        )
        with training_bar(self.say) as tell:
            return distill(
                large, tokenizer, small, own_tokenizer, lesson, recipe, self._directory,
                self._separator, name=(made,), tell=tell,
            )  # fmt: skip

    def end(
        self,
        original: str,
        found: Distilled,
        lesson: Lesson,
        recipe: Recipe,
        made: str,
        engine: dict[str, Any] | None,
    ) -> None:
        """Both beside each other, on validation, and the card."""
        from deployments.optimise.distilling import labels_of, load, task_of
        from deployments.optimise.finetuning import targets_of
        from deployments.optimise.shrunk import beside

        model, _ = load(str(self._directory))
        task, labels = task_of(model, self._separator), labels_of(model)
        both = beside(
            original,
            self._directory,
            (found.teacher, found.student),
            targets_of(lesson.validation, labels, task),
            task,
            lesson.validation.texts,
            engine,
        )
        self.out.print(table_of(both))
        write_card(
            self._directory,
            original,
            [("to learn from", lesson.labelled), ("to choose by", lesson.validation)],
            labels,
            [
                *((name, str(value)) for name, value in asdict(recipe).items()),
                ("made", made),
                ("more texts, without labels", f"{len(lesson.more):,}"),
                ("seconds", f"{found.outcome.seconds:.0f}"),
            ],
            both,
        )
        self.out.print(f"{self._directory} written.")

    def _table(self, path: str, numbers: bool) -> Labelled:
        text, label, kind, encoding = self._columns
        return read_table(path, text, label, kind, encoding, self._separator, None, numbers)


def _student(name: str, teacher: Any) -> tuple[Any, Any]:
    """A model of any class, with a head for the teacher's labels. Raises BadBase."""
    from deployments.optimise.distilling import labels_of, task_of
    from deployments.optimise.finetuning import loaded

    tokenizer, model, _ = loaded(name, labels_of(teacher), task_of(teacher).problem_type)
    return model, tokenizer


def table_of(both: Beside) -> Table:
    """Original and smaller one, side by side."""
    table = Table("on validation", "original", "smaller", box=None)
    for row in both.rows():
        table.add_row(*row)
    table.add_row("share of the original's figure", "", f"{both.kept:.2%}")
    table.add_row("agreement", "", f"{both.agreement:.2%}")
    if both.faster is not None:
        table.add_row("times as many texts/s", "", f"{both.faster:.2f}")
    return table


def write_card(
    directory: Path,
    original: str,
    data: Sequence[tuple[str, Labelled]],
    labels: Sequence[str],
    recipe: Sequence[tuple[str, str]],
    both: Beside,
) -> None:
    """README.md beside the weights."""
    from deployments.optimise.card import Card

    Card(
        title="A smaller model",
        base=original,
        command="rayclassify " + shlex.join(sys.argv[1:]),
        data=data,
        labels=labels,
        recipe=recipe,
        figures=both.figures(),
        notes=[
            "The rows to choose by chose the epoch, so their figures flatter both a little; "
            "`rayclassify evaluate` with other rows does not.",
            "Speeds are of one process on the machine named above, without a service around it.",
            "The original's limits and licence hold for it too.",
        ],
    ).write(directory)
