"""`rayclassify baseline` and `drift`: whether texts and answers are still of the kind they were."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deployments.cli.deploy import Address, AppName, find, told
from deployments.cli.evaluate import (
    DtypeOption,
    EncodingOption,
    EngineOption,
    ForceOption,
    KindOption,
    ModelArgument,
    TextColumnOption,
    beside,
    engine_settings,
    fail,
    read_texts,
    refuse_overwriting,
    require_scipy,
)
from deployments.cli.exit_codes import NO, WRONG
from deployments.cli.formats import Format, FormatOption, JsonOption, chosen, print_csv, print_json

_COLUMNS = ("application", "baseline", "feature", "texts", "psi", "threshold", "moved")


def baseline(
    model: ModelArgument,
    data: Annotated[str, typer.Option(help="Texts as the service should meet; labels not needed.")],
    text_column: TextColumnOption = "text",
    false_alarm_rate: Annotated[
        float,
        typer.Option(min=1e-6, max=0.1, help="Of windows of such texts, the share that alarms."),
    ] = 0.001,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: drift.json in the model's directory."),
    ] = None,
    engine: EngineOption = "auto",
    dtype: DtypeOption = "auto",
    kind: KindOption = None,
    encoding: EncodingOption = "utf-8",
    force: ForceOption = False,
) -> None:
    """Write how labels, scores, lengths and unknown tokens are distributed over reference texts.

    The file holds counts by bin, and no text. A service that loads the model beside it counts what
    it meets in the same bins, as metrics with an alert; `rayclassify drift` compares them.

    Example: `rayclassify baseline ./mine --data reference.csv`
    """
    from deployments.bulk.tables import BadTable
    from deployments.optimise.drifting import baseline as made
    from deployments.optimise.drifting import check_enough, see
    from deployments.optimise.labelled import BadData
    from deployments.optimise.running import CandidateFailed

    output = beside(model, "drift.json", output)
    refuse_overwriting({"--output": output}, force)
    settings = engine_settings(engine, dtype)
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    require_scipy(say)
    try:
        texts, left_out = read_texts(data, text_column, kind, encoding)
        check_enough(len(texts))
        with say.status(f"asking {model} {len(texts):,} texts"):
            seen = see(model, settings, texts)
        content, notes = made(seen, false_alarm_rate)
    except (BadTable, BadData) as exc:
        fail(say, str(exc), WRONG)
    except CandidateFailed as exc:
        fail(say, f"{model}: {exc}", NO)
    for note in (*left_out, *notes):
        say.print(f"warning: {note}")
    output.write_text(json.dumps(content) + "\n", encoding="utf-8")
    out = Console(highlight=False, soft_wrap=True, markup=False)
    watched = ", ".join(f"{name} in {len(f['counts'])}" for name, f in content["features"].items())
    out.print(f"{content['n_texts']:,} texts, by bins: {watched}")
    out.print(f"{output} written. A service watches once it has loaded the model anew.")


def drift(
    address: Address = None,
    app: AppName = None,
    format_: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether labels, scores, lengths or unknown tokens have moved from the model's drift.json.

    It adds up what all replicas say at the nodes' metrics endpoints, of the last hour's texts.

    Example: `rayclassify drift --json`
    """
    from deployments.deploying.dashboard import Dashboard
    from deployments.deploying.drift_view import compare
    from deployments.deploying.live_view import metrics_pages, session_for
    from deployments.deploying.rates import merged

    form = chosen(format_, as_json)
    with told():
        dashboard = Dashboard(find(address))
        found = compare(merged(metrics_pages(dashboard, session_for(dashboard))), app)
    rows: list[dict[str, Any]] = [asdict(one) for one in found]
    if form is Format.json:
        print_json(rows)
    elif form is Format.csv:
        print_csv(list(_COLUMNS), [{name: row[name] for name in _COLUMNS} for row in rows])
    elif rows:
        table = Table(*_COLUMNS)
        for one in found:
            moved = "too few texts" if one.moved is None else ("yes" if one.moved else "no")
            table.add_row(
                *(one.application, one.baseline, one.feature, f"{one.texts:,}"),
                *(f"{one.psi:.3f}", f"{one.threshold:.3f}", moved),
            )
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    if not rows:
        say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        fail(
            say,
            "nothing is watched yet: the model has no drift.json (`rayclassify baseline`), or no "
            "text has come. Endpoints change every 10 s.",
            NO,
        )
    if any(one.moved for one in found):
        raise typer.Exit(NO)
