"""`rayclassify cascade`: a small model first, the large one for what it is unsure of."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployments.cli.check import DEFAULT_CONFIG, checked_config
from deployments.cli.evaluate import (
    DtypeOption,
    EncodingOption,
    EngineOption,
    ForceOption,
    KindOption,
    LabelColumnOption,
    TextColumnOption,
    engine_settings,
    fail,
    read_table,
    refuse_overwriting,
    require_scipy,
)
from deployments.cli.exit_codes import NO, WRONG
from deployments.cli.formats import print_json

if TYPE_CHECKING:
    from deployments.optimise.cascading import Cascaded


def cascade(
    small: Annotated[str, typer.Argument(help="The model that answers first.")],
    large: Annotated[str, typer.Argument(help="The model that gets what it is unsure of.")],
    data: Annotated[str, typer.Option(help="Labelled texts that neither model ever saw.")],
    text_column: TextColumnOption = "text",
    label_column: LabelColumnOption = "label",
    max_loss: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Of accuracy, against the large model alone: a share."),
    ] = 0.005,
    config: Annotated[Path, typer.Option(help="The Serve YAML to begin from.")] = DEFAULT_CONFIG,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write that config with the cascade in it."),
    ] = None,
    engine: EngineOption = "auto",
    dtype: DtypeOption = "auto",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the score from which a small model's answer may stand, and write the config.

    Half of the texts fit the threshold: the lowest that loses no more than --max-loss. The other
    half shows what it loses, how many texts go on to the large model, and how fast both are.

    Example: `rayclassify cascade ./small ./large --data heldout.csv -o cascade.yaml`
    """
    from deployments.bulk.tables import BadTable
    from deployments.config.keys import BUILDER
    from deployments.model.source import ModelNotFound
    from deployments.optimise.cascading import answers_of, fit, refuse_before_asking
    from deployments.optimise.labelled import BadData
    from deployments.optimise.running import CandidateFailed

    refuse_overwriting({"--output": output}, force)
    app_name = ""
    if output is not None:
        apps = [a for a in checked_config(config)["applications"] if a["import_path"] == BUILDER]
        if not apps:
            raise typer.BadParameter(f"{config} has no {BUILDER}.", param_hint="--config")
        app_name = apps[0].get("name", "default")
    settings = engine_settings(engine, dtype)
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    require_scipy(say)
    try:
        rows = read_table(data, text_column, label_column, kind, encoding)
        refuse_before_asking(rows, small, large)
        answers = []
        for model in (small, large):
            with say.status(f"asking {model} {len(rows):,} texts"):
                try:
                    answers.append(answers_of(model, settings, rows.texts))
                except CandidateFailed as exc:
                    fail(say, f"{model}: {exc}", NO)
        found = fit(rows, answers[0], answers[1], (small, large), max_loss)
    except (BadTable, BadData, ModelNotFound) as exc:
        fail(say, str(exc), WRONG)
    for note in rows.notes:
        say.print(f"warning: {note}")
    if as_json:
        print_json(asdict(found))
    else:
        _print(found, (small, large))
    if found.at_most > max_loss:
        say.print(
            f"warning: {found.n_checked:,} texts can't promise a loss of {max_loss:.2%}, only of "
            f"{found.at_most:.2%}; more texts can."
        )
    if found.loss > max_loss:
        fail(
            say,
            f"the other half lost {found.loss:.2%}, more than {max_loss:.2%}: no config. Give more "
            "texts, or ask for less than you may lose: the threshold was the first half's best.",
            NO,
        )
    if output is not None:
        from deployments.tuning.config import with_cascade

        written = with_cascade(
            config.read_text(encoding="utf-8"), app_name, small, large, found.threshold
        )
        output.write_text(written, encoding="utf-8")
        checked_config(output)
        say.print(f"{output} written. Next: rayclassify serve {output}")


def _print(found: Cascaded, names: tuple[str, str]) -> None:
    out = Console(highlight=False, soft_wrap=True, markup=False)
    out.print(
        f"threshold {found.threshold:g}, fitted to {found.n_fitted:,} texts; below it "
        f"{found.passed_on:.1%} of {found.n_checked:,} other texts go on to the large model"
    )
    table = Table("", "accuracy", "macro-F1", "texts/s", box=None, header_style="bold")
    for name, quality, per_s in (
        (f"small: {names[0]}", found.small, found.small_texts_per_s),
        (f"large: {names[1]}", found.large, found.large_texts_per_s),
        ("cascade", found.cascade, found.texts_per_s),
    ):
        figures = (f"{quality.accuracy:.3f}", f"{quality.macro_f1:.3f}", f"{per_s:,.0f}")
        table.add_row(name, *figures)
    out.print(table)
    said = "loses" if found.loss >= 0 else "gains"
    bound = f"loses at most {found.at_most:.2%}"
    if found.at_most < 0:
        bound = f"gains at least {-found.at_most:.2%}"
    out.print(
        f"the cascade {said} {abs(found.loss):.2%} of accuracy there; with 95 % confidence it "
        f"{bound}"
    )
    if not found.passed_on:
        out.print(f"no text goes on: {names[0]} alone answers as well, without a cascade")
