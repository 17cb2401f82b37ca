"""`rayclassify distill`, `prune` and `trim`: a smaller model of a larger one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.evaluate import (
    DtypeOption,
    EncodingOption,
    EngineOption,
    ForceOption,
    KindOption,
    LabelColumnOption,
    TextColumnOption,
    engine_settings,
)
from deployments.cli.shrinking import Job

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

    The teacher's opinion of each text is asked once. The student learns it, the rows' labels and
    the teacher's last hidden state. A run that was killed goes on when it is asked for again.

    Example: `rayclassify distill ./large --layers 2 --data train.csv --unlabelled more.csv --out
    ./small`
    """
    if (layers is None) == (student is None):
        raise typer.BadParameter("give one of them: --layers or --student.", param_hint="--layers")
    job = Job(
        out, force, data, validation, text_column, label_column, separator, kind, encoding,
        (teacher, student), unlabelled,
    )  # fmt: skip
    with job.errors():
        from deployments.optimise.distilling import load
        from deployments.optimise.students import evenly, layers_of, with_layers

        large, tokenizer = load(teacher)
        lesson = job.lesson(teacher, large, unlabelled)
        if student is not None:
            small, own_tokenizer = _student(student, large, seed)
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
    job = Job(
        out, force, data, validation, text_column, label_column, separator, kind, encoding,
        (model,), unlabelled,
    )  # fmt: skip
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
    min_count: Annotated[
        int, typer.Option(min=1, help="Tokens that occur less often go, too.")
    ] = 1,
    text_column: TextColumnOption = "text",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Cut a vocabulary to the tokens that some texts use, and the embeddings with it.

    Such texts get the same logits as before. Others are spelt in smaller pieces, so give many: a
    tenth, drawn by chance, is held out to show how many change. Single characters and special
    tokens stay.

    Example: `rayclassify trim ./mine --data texts.csv --out ./trimmed`
    """
    job = Job(out, force, data, None, text_column, text_column, None, kind, encoding, (model,))
    with job.errors():
        from deployments.optimise.distilling import load
        from deployments.optimise.trimming import trim_and_save

        large, tokenizer = load(model)
        texts = job.texts(data)
        found = trim_and_save(model, large, tokenizer, texts, out, job.clear, min_count)
        job.end_of_trim(model, found, texts)


def _student(name: str, teacher: Any, seed: int) -> tuple[Any, Any]:
    """A model of any class, with a head for the teacher's labels. Raises BadBase."""
    import torch

    from deployments.optimise.bases import loaded
    from deployments.optimise.distilling import labels_of, task_of

    torch.manual_seed(seed)  # of a new head
    tokenizer, model, _ = loaded(name, labels_of(teacher), task_of(teacher).problem_type)
    return model, tokenizer
