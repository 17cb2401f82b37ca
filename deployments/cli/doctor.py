"""`rayclassify doctor`: what this machine has, and which engine would run the model on it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from deployments.cli.check import (
    BAD_CONFIG,
    DEFAULT_CONFIG,
    ConfigPath,
    print_problems,
    read_config,
)
from deployments.engines.machine import threads_for
from deployments.engines.measurement import Measured
from deployments.settings import Settings

NOT_RUNNABLE = 1
"""Exit code: the config's model or engine can't run here."""


@dataclass(frozen=True, slots=True)
class Pick:
    """rows: what was measured, the chosen one first; why: one sentence; error: why none can run."""

    why: str
    rows: list[Measured]
    error: bool = False


def doctor(
    config: ConfigPath = DEFAULT_CONFIG,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Measure the engines and the peak of matrix products (a minute), or only look.",
        ),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of tables.")
    ] = False,
) -> None:
    """Look at this machine as the service would: CPU, limits, GPUs, proxy, packages, engines.

    Then measures every engine that the config allows on this machine, on the config's model, and
    shows which one `engine: auto` takes and why. The choice is kept: the next start with the same
    model and settings has it at once. Last comes what a missing extra would bring.

    Exit code 0; 1: the config's model or engine can't run here; 2: the config is wrong.

    Examples:

    - `rayclassify doctor`

    - `rayclassify doctor my_config.yaml --json > machine.json`

    - `rayclassify doctor --no-measure`, on a machine that is busy
    """
    loaded, problems = read_config(config)
    if problems:
        print_problems(problems)
        raise typer.Exit(BAD_CONFIG)
    settings, num_threads = _classifier(loaded)

    from deployments.cli import doctor_facts, doctor_show

    facts = doctor_facts.machine_facts()
    show = doctor_show.Show(quiet=as_json)
    show.machine(facts)
    peaks: dict[str, float | None] = {}
    if measure:
        with show.waiting("measuring matrix products"):
            peaks = doctor_facts.peaks(num_threads)
        show.peaks(peaks, num_threads)
    pick = _pick(settings, num_threads, measure, show)
    show.pick(settings, num_threads, pick.why, pick.rows)
    advice = doctor_facts.advice(facts, _device(settings))
    show.advice(advice)
    if as_json:
        found = {
            "machine": facts,
            "num_threads": num_threads,
            "peak_gflops": peaks,
            "engine": {"why": pick.why, "rows": [row.to_json() for row in pick.rows]},
            "advice": advice,
        }
        sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    if pick.error:
        raise typer.Exit(NOT_RUNNABLE)


def _classifier(config: dict[str, Any]) -> tuple[Settings, int]:
    """The settings of the config's application, and the threads of its Classifier."""
    app = (config.get("applications") or [{}])[0]
    try:
        settings = Settings.model_validate(app.get("args") or {})
    except ValidationError:  # the check has found nothing, so this is another's application
        settings = Settings()
    deployments = {d.get("name"): d for d in app.get("deployments") or []}
    options = (deployments.get("Classifier") or {}).get("ray_actor_options") or {}
    num_threads = settings.engine.num_threads or threads_for(options.get("num_cpus", 1))
    return settings, num_threads


def _pick(settings: Settings, num_threads: int, measure: bool, show: Any) -> Pick:
    """What would run, by the code that decides it at a start."""
    if settings.engine.name == "none":
        return Pick("args.engine.name is none: the service answers without a model.", [])
    from deployments.engines import catalog, isolation
    from deployments.engines.auto import AutoEngine
    from deployments.engines.base import EngineUnavailable
    from deployments.model.source import ModelNotFound, model_info

    try:
        model_info(settings.model)
        candidates = catalog.candidates(settings.engine)
    except (ModelNotFound, EngineUnavailable, ValueError) as exc:
        return Pick(str(exc), [], error=True)
    if len(candidates) == 1:
        return Pick(f"{candidates[0]}: all that the config allows here; not measured.", [])
    engine = AutoEngine(settings.model, settings.engine, num_threads)
    if not measure:
        rows = engine.cached()
        if rows is None:
            names = ", ".join(map(str, candidates))
            return Pick(f"not measured yet. The first start chooses among: {names}.", [])
        return Pick(f"{rows[0].candidate}: measured earlier, and the next start takes it.", rows)
    with show.progress("measuring engines", len(candidates)) as on_row:
        engine = AutoEngine(
            settings.model,
            settings.engine,
            num_threads,
            measure=partial(isolation.measure, on_row=on_row),
        )
        rows = engine.measure_anew(candidates)
    if not rows or not rows[0].chosen:
        return Pick("none of the engines runs this model here.", rows, error=True)
    return Pick(f"{rows[0].candidate}: the fastest here that agrees with the model.", rows)


def _device(settings: Settings) -> str:
    from deployments.engines.hardware import pick_device

    try:
        return str(pick_device(settings.engine.device).type)
    except ValueError:
        return settings.engine.device
