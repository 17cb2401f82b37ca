"""`rayclassify calibrate`: scores that mean what they say, and when to abstain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments import installing
from deployments.cli.evaluate import (
    DtypeOption,
    EncodingOption,
    EngineOption,
    ForceOption,
    KindOption,
    LabelColumnOption,
    ModelArgument,
    TextColumnOption,
    beside,
    engine_settings,
    fail,
    read_table,
    refuse_overwriting,
    require_scipy,
)
from deployments.cli.exit_codes import NO, WRONG


def calibrate(
    model: ModelArgument,
    data: Annotated[str, typer.Option(help="Labelled texts that the model never saw.")],
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    target_error: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.5, help="Abstain so that no more of the rest are wrong."),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.999, help="Sets of labels that hold the right one so often."),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option("--label-separator", help="Of models with several labels a text: a;b, say."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: calibration.json in the model's directory."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Reliability diagram: .svg or .png.")] = None,
    engine: EngineOption = "auto",
    dtype: DtypeOption = "auto",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Calibrate a model's scores on held-out texts, and write calibration.json beside it.

    Half of the texts fit the temperature. The other half shows the error of the scores before and
    after, and gives the thresholds. The service reads the file when it loads the model;
    `user_config` of the Postprocessor changes the thresholds live.

    Example: `rayclassify calibrate ./mine --data heldout.csv --target-error 0.05`
    """
    from deployments.bulk.tables import BadTable
    from deployments.optimise.calibrating import calibrate as run
    from deployments.optimise.calibrating import calibrate_sets, reliability_plot
    from deployments.optimise.labelled import BadData
    from deployments.optimise.running import CandidateFailed, score_texts
    from deployments.pipeline.tasks.text_classification import MULTI_LABEL

    if separator is not None and (target_error is not None or coverage is not None):
        raise typer.BadParameter(
            "--target-error and --coverage are for models of one label a text.",
            param_hint="--label-separator",
        )
    output = beside(model, "calibration.json", output)
    if plot is not None and plot.suffix not in {".svg", ".png"}:
        raise typer.BadParameter(f"{plot} is neither .svg nor .png.", param_hint="--plot")
    refuse_overwriting({"--output": output, "--plot": plot}, force)
    settings = engine_settings(engine, dtype)
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    require_scipy(say)
    out = Console(highlight=False, soft_wrap=True, markup=False)
    try:
        rows = read_table(data, text_column, label_column, kind, encoding, separator)
        with say.status(f"asking {model} {len(rows):,} texts"):
            scored = score_texts(model, settings, rows.texts)
        if (scored.problem_type == MULTI_LABEL) != (separator is not None):
            raise BadData(
                f"{model} is a {scored.problem_type} model: "
                + ("say" if separator is None else "leave out")
                + " --label-separator."
            )
        if separator is not None:
            found = calibrate_sets(rows, scored, model, separator)
        else:
            found = run(rows, scored, model, target_error, coverage)
    except (BadTable, BadData) as exc:
        fail(say, str(exc), WRONG)
    except CandidateFailed as exc:
        fail(say, f"{model}: {exc}", NO)
    for note in (*rows.notes, *found.notes):
        say.print(f"warning: {note}")
    fitted = "a line for each label" if found.platt else f"temperature {found.temperature:g}"
    out.print(f"{fitted}, fitted to {found.n_fitted:,} texts")
    out.print(
        f"expected calibration error {found.before.ece:.4f} before, {found.after.ece:.4f} after, "
        f"on {found.n_checked:,} other texts"
    )
    if found.after.ece > found.before.ece:
        say.print(
            "warning: the error did not fall: the scores were good before, or these are few texts."
        )
    if (one := found.abstention) is not None:
        out.print(
            f"abstains below {one.threshold:g}: answers {one.answered:.1%} of texts, "
            f"{one.error:.2%} of them wrong here; with 95 % confidence at most {one.at_most:.2%}"
        )
    if found.label_set_from is not None:
        out.print(
            f"label sets from {found.label_set_from:g}: the right label is in {coverage:.1%} of "
            f"them or more; they hold {found.mean_set_size:.2f} labels on average"
        )
    output.write_text(json.dumps(found.content()) + "\n", encoding="utf-8")
    out.print(f"{output} written.")
    if plot is not None:
        try:
            reliability_plot(found, plot, plot.suffix[1:])
        except ImportError:
            say.print(f"no plot: matplotlib is not installed: {installing('plots')}.")
        else:
            out.print(f"{plot} written.")
