"""`rayclassify doctor`: what this machine has, and which engine would run the model on it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Annotated, Any

import psutil
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deployments import installing
from deployments.cli.check import (
    BAD_CONFIG,
    DEFAULT_CONFIG,
    ConfigPath,
    print_problems,
    read_config,
)
from deployments.config.ray_inside import other_version
from deployments.engines import machine
from deployments.engines.catalog import EXTRAS
from deployments.engines.cpu import FEATURES, cpu_features, cpu_model
from deployments.engines.known_speeds import KNOWN, cpu_kind
from deployments.engines.measurement import Measured
from deployments.launch.ingress import choose_ingress
from deployments.settings import Settings

NOT_RUNNABLE = 1
"""Exit code: the config's model or engine can't run here."""

PACKAGES = ("rayclassify", "ray", "torch", "transformers", "tokenizers", "numpy")
EXTRA_PACKAGES = {"openvino": ("openvino", "nncf")}


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
    out = Console(quiet=as_json, highlight=False)

    facts = machine_facts()
    _show(out, "Machine", _machine_rows(facts))
    _show(out, "Packages", _package_rows(facts))
    gflops: dict[str, float | None] = {}
    if measure:
        with Console(stderr=True).status("measuring matrix products"):
            gflops = peaks(num_threads)
        title = f"Matrix products, {_threads(num_threads)}, 512 × 768 × 3072, the best of many"
        shown = {
            name: "not here" if n is None else f"{n:,.0f} GFLOP/s" for name, n in gflops.items()
        }
        _show(out, title, shown)
    pick = _pick(settings, num_threads, measure)
    _show_pick(out, settings, num_threads, pick)
    told = advice(facts, _device(settings))
    if told:
        _heading(out, "What else there is")
        _lines(out, *told)
    if as_json:
        found = {
            "machine": facts,
            "num_threads": num_threads,
            "peak_gflops": gflops,
            "engine": {"why": pick.why, "rows": [row.to_json() for row in pick.rows]},
            "advice": told,
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
    num_threads = settings.engine.num_threads or machine.threads_for(options.get("num_cpus", 1))
    return settings, num_threads


def _pick(settings: Settings, num_threads: int, measure: bool) -> Pick:
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
    if not measure:
        kept = AutoEngine(settings.model, settings.engine, num_threads).cached()
        if kept is None:
            names = ", ".join(map(str, candidates))
            return Pick(f"not measured yet. The first start chooses among: {names}.", [])
        return Pick(f"{kept[0].candidate}: measured earlier, and the next start takes it.", kept)
    with Console(stderr=True).status("measuring engines") as status:

        def on_row(row: Measured) -> None:
            status.update(f"measuring {len(candidates)} engines: {row.candidate} done")

        measuring = partial(isolation.measure, on_row=on_row)
        engine = AutoEngine(settings.model, settings.engine, num_threads, measure=measuring)
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


def machine_facts() -> dict[str, Any]:
    """Plain values, for JSON and for the tables. None: there is none, or it can't be told."""
    features = cpu_features()
    memory = psutil.virtual_memory()
    has_affinity = hasattr(os, "sched_getaffinity")  # macOS has none
    allowed = os.sched_getaffinity(0) if has_affinity else range(os.cpu_count() or 1)
    return {
        "cpu": {
            "model": cpu_model(),
            "architecture": platform.machine(),
            "features": [FEATURES[name] for name in features],
            "kind": cpu_kind(features),
            "cores": os.cpu_count(),
            "allowed_cores": len(allowed),
            "quota_cpus": machine.cgroup_cpu_limit(),
            "usable_cpus": machine.cpu_count(),
            "load_1min": psutil.getloadavg()[0],
        },
        "memory": {
            "total_bytes": memory.total,
            "limit_bytes": machine.memory_limit_bytes(),
            "available_bytes": machine.available_memory_bytes(),
            "shared_bytes": machine.shared_memory_bytes(),
        },
        "gpus": find_gpus(),
        "proxy": str(choose_ingress(True)),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "extras": {
            extra: {
                "installed": all(importlib.util.find_spec(module) for module in modules),
                "packages": {name: version(name) for name in EXTRA_PACKAGES[extra]},
            }
            for extra, modules in EXTRAS.items()
        },
    }


def find_gpus() -> list[dict[str, str]]:
    """NVIDIA's, as its own tool lists them; torch is asked only where the engines are measured."""
    tool = shutil.which("nvidia-smi") or "nvidia-smi"
    command = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ") for line in listed.stdout.splitlines()]
    return [
        dict(zip(("name", "memory", "driver"), row, strict=True)) for row in rows if len(row) == 3
    ]


def peaks(num_threads: int) -> dict[str, float | None]:
    """GFLOP/s (int8: 10⁹ operations) by type, on `num_threads` cores and, with a GPU, on that."""
    import torch

    from deployments.engines.gemm import peak_gflops

    asked = [("cpu", dtype) for dtype in ("float32", "bfloat16", "int8")]
    if torch.cuda.is_available():
        asked += [("cuda", dtype) for dtype in ("float32", "float16", "bfloat16")]
    return {
        f"{device.replace('cuda', 'gpu')} {dtype}": peak_gflops(dtype, num_threads, device)
        for device, dtype in asked
    }


def advice(facts: dict[str, Any], device: str) -> list[str]:
    """For each extra that is missing: how to get it, and what it brought on such a CPU."""
    missing = [name for name, extra in facts["extras"].items() if not extra["installed"]]
    if device != "cpu":
        return [f"{name} runs on CPUs only: nothing to gain on {device}." for name in missing]
    kind = facts["cpu"]["kind"]
    return [
        f"{name} is not installed: {installing(name)}. {_expected(name, kind)}" for name in missing
    ]


def _expected(name: str, kind: str) -> str:
    known = KNOWN.get(kind)
    best, torch = (known.best(name), known.best("torch")) if known else (None, None)
    if known is None or best is None or torch is None:
        return (
            f"What it brings on a CPU of this kind ({kind}) is not known. "
            "Install it and run this again: it is measured then."
        )
    ratio = best[1] / torch[1]
    return (
        f"On a CPU of this kind ({kind}) its best, {best[0]}, ran at {ratio:.2g} times the speed "
        f"of the best without it, {torch[0]} ({known.where})."
    )


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine_rows(facts: dict[str, Any]) -> dict[str, str | Text]:
    cpu, memory = facts["cpu"], facts["memory"]
    cores = f"{cpu['cores']}"
    if cpu["allowed_cores"] != cpu["cores"]:
        cores += f"; this process may use {cpu['allowed_cores']}"
    if cpu["quota_cpus"] is not None:
        cores += f"; the container's quota is {cpu['quota_cpus']:g}"
    rows: dict[str, str | Text] = {
        "CPU": cpu["model"],
        "instructions": ", ".join(cpu["features"]) or "unknown",
        "cores": cores,
    }
    if cpu["load_1min"] > 0.5 * cpu["usable_cpus"]:
        busy = f"load {cpu['load_1min']:.1f}: other work disturbs what is measured below"
        rows[""] = Text(busy, style="yellow")
    limit, total, shared = memory["limit_bytes"], memory["total_bytes"], memory["shared_bytes"]
    container = " (the container's limit)" if limit and limit < total else ""
    free = f"{_gb(memory['available_bytes'])} free of {_gb(min(limit or total, total))}"
    gpus = [f"{gpu['name']}, {gpu['memory']}, driver {gpu['driver']}" for gpu in facts["gpus"]]
    return rows | {
        "memory": free + container,
        str(machine.SHARED_MEMORY): "none" if shared is None else f"{_gb(shared)} free",
        "GPUs": "\n".join(gpus) or "none",
        "proxy": facts["proxy"].removeprefix("HAProxy ingress: "),
    }


def _package_rows(facts: dict[str, Any]) -> dict[str, str | Text]:
    rows: dict[str, str | Text] = {"Python": facts["python"]}
    for name, there in facts["packages"].items():
        rows[name] = there or Text("not installed", style="red")
    if told := other_version():
        rows["ray"] = Text(told, style="yellow")
    for name, extra in facts["extras"].items():
        versions = [f"{k} {v}" for k, v in extra["packages"].items() if v]
        missing = [k for k, v in extra["packages"].items() if not v]
        shown = Text(", ".join(versions) if extra["installed"] else "not installed")
        if extra["installed"] and missing:
            shown.append(f" (without {', '.join(missing)})", style="yellow")
        rows[f"extra {name}"] = shown
    return rows


def _show_pick(out: Console, settings: Settings, num_threads: int, pick: Pick) -> None:
    engine = settings.engine
    _heading(out, "Engine")
    asked = f"name: {engine.name}, dtype: {engine.dtype}, device: {engine.device}"
    _lines(out, f"{settings.model.id} with {asked}, {_threads(num_threads)}")
    if pick.rows:
        table = Table(box=None, header_style="dim", pad_edge=True)
        table.add_column("engine", no_wrap=True)
        for name in ("texts/s", "max drift", "same labels"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", overflow="fold")
        for row in pick.rows:
            table.add_row(
                str(row.candidate),
                "-" if row.texts_per_s is None else f"{row.texts_per_s:.3g}",
                "-" if row.max_drift is None else f"{row.max_drift:.2g}",
                "-" if row.label_agreement is None else f"{row.label_agreement:.1%}",
                Text(row.verdict),
                style="bold green" if row.chosen else "" if row.agrees else "dim",
            )
        out.print(table)
    _lines(out, f"→ {pick.why}", style="bold")
    if pick.rows and pick.rows[0].chosen:
        name, dtype = pick.rows[0].candidate.name, pick.rows[0].candidate.dtype
        _lines(
            out,
            f"To start without measuring anywhere, set name: {name} and dtype: {dtype} under "
            "args.engine.",
        )


def _show(out: Console, title: str, rows: dict[str, str] | dict[str, str | Text]) -> None:
    _heading(out, title)
    table = Table(box=None, show_header=False, pad_edge=True)
    table.add_column(style="dim", no_wrap=True, min_width=16)
    table.add_column(overflow="fold")
    for name, shown in rows.items():
        table.add_row(name, shown)
    out.print(table)


def _lines(out: Console, *lines: str, style: str = "") -> None:
    for line in lines:
        out.print(Padding(Text(line, style=style), (0, 0, 0, 1)))


def _heading(out: Console, title: str) -> None:
    out.print()
    out.print(Text(title, style="bold"))


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
