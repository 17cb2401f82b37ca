"""`rayclassify doctor`: what this machine has, and which engine would run the model on it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from deployments import installing
from deployments.cli.check import DEFAULT_CONFIG, ConfigPath, checked_config
from deployments.cli.exit_codes import NO
from deployments.config.ray_inside import other_version
from deployments.engines import machine
from deployments.engines.cpu import FEATURES, cpu_features, cpu_model
from deployments.engines.measurement import Measured
from deployments.launch.ingress import choose_ingress
from deployments.launch.plan import our_settings
from deployments.pipeline.explaining import about
from deployments.settings import PARTS, Settings

PACKAGES = ("rayclassify", "ray", "torch", "transformers", "tokenizers", "nanotoken", "numpy")


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
    model and settings has it at once.

    Examples:

    - `rayclassify doctor`

    - `rayclassify doctor my_config.yaml --json > machine.json`

    - `rayclassify doctor --no-measure`, on a machine that is busy
    """
    (settings, num_threads), *beside = _classifiers(checked_config(config))
    out = Console(quiet=as_json, highlight=False, markup=False, emoji=False)

    facts = machine_facts()
    _show(out, "Machine", facts)
    if facts["cpu"]["load_1min"] > 0.5 * facts["cpu"]["usable_cpus"]:
        out.print("The machine is busy: its load disturbs what is measured below.", style="yellow")
    if warning := other_version():
        out.print(warning, style="yellow")
    gflops: dict[str, float | None] = {}
    if measure:
        with Console(stderr=True).status("measuring matrix products"):
            gflops = peaks(num_threads)
        _show(out, "GFLOP/s of matrix products, 512 × 768 × 3072, the best of many", gflops)
    picks = []
    for own, threads in ((settings, num_threads), *beside):
        picks.append(_pick(own, threads, measure))
        _show_pick(out, own, threads, picks[-1])
    explains = _explanations(settings)
    if explains:
        out.print(f"\nexplanations: {explains}", style="bold")
    if as_json:
        found = {
            "explanations": explains,
            "machine": facts,
            "num_threads": num_threads,
            "peak_gflops": gflops,
            "engine": _told(picks[0]),
            "beside": {
                own.model.id: _told(pick) for (own, _), pick in zip(beside, picks[1:], strict=True)
            },
        }
        sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    if any(pick.error for pick in picks):
        raise typer.Exit(NO)


def _explanations(settings: Settings) -> str | None:
    """By which methods; None: they are off."""
    if not settings.explain.enabled:
        return None
    methods = about(settings.explain)["methods"]
    if "integrated_gradients" in methods:
        return ", ".join(methods[1:])
    return f"{', '.join(methods[1:])}; for integrated_gradients {installing('explain')}"


def _told(pick: Pick) -> dict[str, Any]:
    return {"why": pick.why, "rows": [asdict(row) for row in pick.rows]}


def _classifiers(config: dict[str, Any]) -> list[tuple[Settings, int]]:
    """Of each model of our first application, `args.model` first: its settings, and the threads of
    a replica."""
    settings = next((ours for ours, _ in our_settings(config)), Settings())
    asked: dict[str, float] = {}
    for app in config["applications"]:
        for deployment in app.get("deployments", []):
            cpus = deployment.get("ray_actor_options", {}).get("num_cpus", 1)
            asked.setdefault(deployment.get("name"), cpus)
    models = {"Classifier": settings} | {
        name: own for part, name in PARTS.items() if (own := settings.of(part)) is not None
    }
    return [
        (own, own.engine.num_threads or machine.threads_for(asked.get(name, 1)))
        for name, own in models.items()
    ]


def _pick(settings: Settings, num_threads: int, measure: bool) -> Pick:
    """What would run, by the code that decides it at a start."""
    if settings.engine.name == "none":
        return Pick("args.engine.name is none: the service answers without a model.", [])
    from deployments.engines.auto import AutoEngine, candidates
    from deployments.model.source import ModelNotFound, model_info

    try:
        model_info(settings.model)
        dtypes = candidates(settings.engine)
    except (ModelNotFound, ValueError) as exc:
        return Pick(str(exc), [], error=True)
    if settings.engine.dtype != "auto":
        return Pick(f"torch {dtypes[0]}: all that the config allows here; not measured.", [])
    engine = AutoEngine(settings.model, settings.engine, num_threads)
    if not measure:
        kept = engine.cached()
        if not kept:
            names = ", ".join(f"torch {dtype}" for dtype in dtypes)
            return Pick(f"not measured yet. The first start chooses among: {names}.", [])
        return Pick(f"torch {kept[0].dtype}: measured earlier, and the next start takes it.", kept)
    with Console(stderr=True).status(f"measuring {len(dtypes)} engines"):
        rows = engine.measured(anew=True)
    if not rows or not rows[0].chosen:
        return Pick("none of the engines runs this model here.", rows, error=True)
    return Pick(f"torch {rows[0].dtype}: the fastest here that agrees with the model.", rows)


def machine_facts() -> dict[str, Any]:
    """Plain values, for JSON and for the table. None: there is none, or it can't be told."""
    features = cpu_features()
    memory = psutil.virtual_memory()
    return {
        "cpu": {
            "model": cpu_model(),
            "architecture": platform.machine(),
            "features": [FEATURES[name] for name in features],
            "cores": os.cpu_count(),
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
    }


def find_gpus() -> dict[str, Any]:
    """How many are here, and those that torch sees: a torch without CUDA sees none."""
    import torch

    try:
        seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return {"count": machine.gpu_count(), "torch_sees": [str(one) for one in seen]}
    except (OSError, RuntimeError, subprocess.SubprocessError) as exc:  # a driver that is ill
        return {"count": None, "torch_sees": [str(exc)]}


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


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _show_pick(out: Console, settings: Settings, num_threads: int, pick: Pick) -> None:
    engine = settings.engine
    asked = f"name: {engine.name}, dtype: {engine.dtype}, device: {engine.device}"
    out.print(f"\n{settings.model.id} with {asked}, threads: {num_threads}", style="bold")
    if pick.rows:
        from deployments.engines.auto import table

        out.print("Texts a second by size of a batch; the score is their geometric mean.")
        out.print(table(pick.rows), soft_wrap=True)
    out.print(f"→ {pick.why}", style="bold")
    if pick.rows and pick.rows[0].chosen:
        out.print(
            f"To start without measuring anywhere, set name: torch and dtype: {pick.rows[0].dtype} "
            "under args.engine."
        )


def _show(out: Console, title: str, facts: dict[str, Any]) -> None:
    """Facts as JSON has them, one a row."""
    out.print(f"\n{title}", style="bold")
    table = Table(box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True, min_width=20)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        for part, value in fact.items() if isinstance(fact, dict) else [("", fact)]:
            is_bytes = part.endswith("_bytes") and value is not None
            shown = f"{value / 1e9:.1f} GB" if is_bytes else _shown(value)
            table.add_row(f"{name} {part.removesuffix('_bytes')}".replace("_", " "), shown)
    out.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(value) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return "none" if value is None else str(value)
