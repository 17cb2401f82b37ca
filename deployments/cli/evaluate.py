"""`rayclassify evaluate`: which model to take, by the user's own labelled table."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from deployments import installing
from deployments.cli.exit_codes import NO, WRONG
from deployments.cli.formats import Format, FormatOption, JsonOption, chosen, print_csv, print_json

if TYPE_CHECKING:
    from deployments.optimise.evaluation import Evaluation, Job
    from deployments.optimise.labelled import Labelled

_PIPE_WIDTH = 200

ModelArgument = Annotated[str, typer.Argument(help="A model's directory, or its id.")]
TextColumnOption = Annotated[str, typer.Option(help="The column that holds the texts.")]
LabelColumnOption = Annotated[str, typer.Option(help="The column that holds the labels.")]
KindOption = Annotated[
    str | None, typer.Option("--input-format", help="Of the table, where its name does not say.")
]
EncodingOption = Annotated[str, typer.Option(help="Of a csv, tsv or jsonl file.")]
EngineOption = Annotated[str, typer.Option(help="As args.engine.name: auto or torch.")]
DtypeOption = Annotated[str, typer.Option(help="As args.engine.dtype.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Write over files that are there.")]


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Directories or ids.")],
    data: Annotated[str, typer.Option(help="A labelled table: csv, tsv, jsonl or parquet.")],
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    label_separator: Annotated[
        str | None,
        typer.Option(help="Between a row's labels, for models that give several, as `;`."),
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="Labels are numbers, of regression models.")
    ] = False,
    train: Annotated[
        str | None,
        typer.Option(help="A table that the baseline learns; default: four fifths of --data."),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Set character n-grams beside them.")] = True,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of this machine; gives cost per million texts.")
    ] = None,
    max_p99_ms: Annotated[
        float | None, typer.Option("--max-p99-ms", min=0, help="Of one text alone.")
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option("--max-memory-mb", min=0, help="Of the whole process.")
    ] = None,
    min_f1: Annotated[
        float | None, typer.Option("--min-f1", min=0, max=1, help="Of macro-F1.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write one HTML page.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the front: .svg or .png.")] = None,
    engine: EngineOption = "auto",
    dtype: DtypeOption = "auto",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
    format_: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare models on your own labelled table, and recommend one.

    Accuracy, macro-F1 and scores by label, or of a regression correlations and errors, have 95 %
    intervals; each pair of models is tested on the
    same texts. Each runs in a process of its own, on the whole machine: latency, texts/s, memory.
    Every text counts once. A table that a model was trained on tells nothing about it.

    Example: `rayclassify evaluate models/demo ./mine --data labelled.csv --max-p99-ms 20`
    """
    from deployments.bulk.tables import BadTable
    from deployments.optimise.choice import Limits
    from deployments.optimise.evaluation import Job
    from deployments.optimise.evaluation import evaluate as run
    from deployments.optimise.labelled import BadData, without
    from deployments.optimise.running import CandidateFailed

    form = chosen(format_, as_json)
    if plot is not None and plot.suffix not in {".svg", ".png"}:
        raise typer.BadParameter(f"{plot} is neither .svg nor .png.", param_hint="--plot")
    if regression and (label_separator or min_f1 is not None):
        raise typer.BadParameter("numbers have no labels and no F1.", param_hint="--regression")
    refuse_overwriting({"--report": report, "--plot": plot}, force)
    settings = engine_settings(engine, dtype)
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if len(models) > 1:
        require_scipy(say)
    try:
        how = (text_column, label_column, kind, encoding, label_separator, None, regression)
        rows = read_table(data, *how)
        learnt: Labelled | None = None
        if train is not None:
            learnt = read_table(train, *how)
            rows = without(rows, learnt, data, train)
        if not regression and label_separator is None:
            refuse_other_labels(rows, models)
        limits = Limits(max_p99_ms, max_memory_mb, min_f1)
        job = Job(data, rows, tuple(dict.fromkeys(models)), settings, limits, learnt,
                  price_per_hour, baseline, label_separator, regression)  # fmt: skip
        found = _shown(run, job, say)
    except (BadTable, BadData) as exc:
        fail(say, str(exc), WRONG)
    except CandidateFailed as exc:
        fail(say, f"no model could be measured. {exc}", NO)
    for note in (*found.notes, *(f"{name}: {why}" for name, why in found.failures.items())):
        say.print(f"warning: {note}")
    _print(found, form)
    _write(found, report, plot, say)
    if found.failures or found.recommendation.chosen is None:
        raise typer.Exit(NO)


def read_table(
    path: str,
    text_column: str,
    label_column: str,
    kind: str | None,
    encoding: str,
    separator: str | None = None,
    pair_column: str | None = None,
    numbers: bool = False,
) -> Labelled:
    """Raises BadTable and BadData; a format that nobody knows is a wrong option."""
    from deployments.bulk.tables import Format as TableFormat
    from deployments.optimise.labelled import read_labelled

    if kind is not None and kind not in get_args(TableFormat):
        known = ", ".join(get_args(TableFormat))
        raise typer.BadParameter(f"{kind}; there are {known}.", param_hint="--input-format")
    named: Any = kind
    return read_labelled(
        path, text_column, label_column, named, encoding, separator, pair_column, numbers
    )


def read_texts(
    path: str, text_column: str, kind: str | None, encoding: str
) -> tuple[list[str], list[str]]:
    """Texts of a table, repeated ones too, as traffic repeats them; and what was left out.

    Raises BadTable.
    """
    from deployments.bulk.columns import check_there
    from deployments.bulk.tables import Format as TableFormat
    from deployments.bulk.tables import format_of, opened

    if kind is not None and kind not in get_args(TableFormat):
        known = ", ".join(get_args(TableFormat))
        raise typer.BadParameter(f"{kind}; there are {known}.", param_hint="--input-format")
    named: Any = kind
    texts, n_rows = [], 0
    with opened(path, format_of(path, named), encoding) as table:
        if table.columns is not None:
            check_there((text_column,), table.columns, "Name yours: --text-column.")
        for row in table.rows:
            n_rows += 1
            text = row.fields.get(text_column)
            if row.fault is None and isinstance(text, str) and text.strip():
                texts.append(text)
    if n_bad := n_rows - len(texts):
        return texts, [f"{n_bad:,} of {n_rows:,} rows have no text: left out."]
    return texts, []


def engine_settings(engine: str, dtype: str) -> dict[str, Any]:
    """What stands under args.engine; a name that nobody knows is a wrong option."""
    from pydantic import ValidationError

    from deployments.settings import EngineSettings

    settings = {"name": engine, "dtype": dtype}
    try:
        checked = EngineSettings.model_validate(settings)
    except ValidationError as exc:
        option = f"--{'engine' if exc.errors()[0]['loc'] == ('name',) else 'dtype'}"
        raise typer.BadParameter(exc.errors()[0]["msg"], param_hint=option) from None
    if checked.name == "none":
        raise typer.BadParameter("none runs no model.", param_hint="--engine")
    return settings


def beside(model: str, name: str, output: Path | None) -> Path:
    """`output`, or that file in the model's directory, where the service finds it."""
    if output is not None:
        return output
    if not Path(model).is_dir():
        raise typer.BadParameter("MODEL is no directory; name a file.", param_hint="--output")
    return Path(model) / name


def refuse_overwriting(files: dict[str, Path | None], force: bool) -> None:
    """By option. Told before anything is measured, not after."""
    for option, path in files.items():
        if path is None:
            continue
        if not path.parent.is_dir():
            raise typer.BadParameter(f"{path.parent} is no directory.", param_hint=option)
        if path.exists() and not force:
            raise typer.BadParameter(f"{path} is there; --force replaces it.", param_hint=option)


def refuse_other_labels(rows: Labelled, models: list[str]) -> None:
    """Raises BadData before a model is measured, which takes half a minute each."""
    from deployments.model.source import ModelNotFound, model_info
    from deployments.optimise.labelled import check_known
    from deployments.pipeline.tasks.text_classification import SINGLE_LABEL
    from deployments.settings import ModelSettings

    for model in models:
        # What can't be read or is of another kind fails by itself, beside the others' figures.
        with suppress(ModelNotFound):
            info = model_info(ModelSettings(id=model))
            if info.problem_type == SINGLE_LABEL:
                check_known(rows, model, info.labels)


def require_scipy(say: Console) -> None:
    """Ends the command where it is missing: before a model is asked, not after minutes."""
    if importlib.util.find_spec("scipy") is None:
        fail(say, f"scipy is not installed: {installing('train')}.", NO)


def fail(say: Console, message: str, code: int) -> Any:
    """Ends the command."""
    say.print(f"error: {message}")
    raise typer.Exit(code)


def _shown(run: Any, job: Job, say: Console) -> Evaluation:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=say, transient=True, redirect_stdout=False, disable=not say.is_terminal
    ) as progress:
        task = progress.add_task("", total=None)
        found: Evaluation = run(job, lambda step: progress.update(task, description=step))
    return found


def _print(found: Evaluation, form: Format) -> None:
    from deployments.optimise.report import by_label_rows, cells, head, signed

    titles = head(found)
    if form is Format.json:
        print_json(found.to_json())
        return
    if form is Format.csv:
        names = [*titles[:-1], "mark"]
        rows = [cells(one, found) for one in found.candidates]
        print_csv(names, [dict(zip(names, row, strict=True)) for row in rows])
        return
    # A pipe has no width; a terminal folds cells.
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    out.print(_table(titles, [cells(one, found) for one in found.candidates]))
    for one in found.candidates:
        out.print(f"\n{one.name}, {one.engine}", markup=False)
        if rows := by_label_rows(one, found.problem.names):
            out.print(_table(("label", "precision", "recall", "F1", "texts"), rows))
    if found.differences:
        out.print("\nOn the same texts:")
    what, test = found.problem.counted
    for gap in found.differences:
        out.print(
            f"{gap.first} − {gap.second}: {found.problem.ranked_by} {signed(gap.main)}, {test} "
            f"{gap.p_value:.2g}, {what} alone {gap.only_first_right:,} : "
            f"{gap.only_second_right:,}",
            markup=False,
        )
    best = found.recommendation.chosen
    out.print(f"\nRecommended: {best.name if best else 'none'}.", style="bold", markup=False)
    out.print(" ".join(found.recommendation.why), markup=False)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _write(found: Evaluation, report: Path | None, plot: Path | None, say: Console) -> None:
    from deployments.optimise.report import front_plot, page

    if report is not None:
        report.write_text(page(found), encoding="utf-8")
        say.print(f"{report} written.")
    if plot is not None:
        try:
            front_plot(found, plot, plot.suffix[1:])
        except ImportError:
            say.print(f"no plot: matplotlib is not installed: {installing('plots')}.")
        else:
            say.print(f"{plot} written.")
