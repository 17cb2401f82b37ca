"""`rayclassify plan`: replicas, nodes and a config for so many requests a second."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deployments.cli.exit_codes import NO, WRONG

if TYPE_CHECKING:
    from deployments.planning.plan import Plan

CPU = "cpu"


def plan(
    rps: Annotated[
        float, typer.Option("--rps", min=0.001, max=1e8, help="Requests a second at the peak.")
    ],
    p99_ms: Annotated[
        float, typer.Option("--p99-ms", min=0.001, max=6e5, help="99 of 100 requests within it.")
    ],
    tokens_mean: Annotated[
        float, typer.Option("--tokens-mean", min=1, max=1e6, help="Tokens of a text, on average.")
    ],
    gpu: Annotated[
        str,
        typer.Option(help="t4, l4, a10, l40s, a100, h100, h200, b200; cpu with --tokens-per-s."),
    ] = "l4",
    model: Annotated[
        str,
        typer.Option(
            help="minilm, bert-base, bert-large for estimates, or the directory to serve."
        ),
    ] = "bert-base",
    tokens_per_s: Annotated[
        float | None,
        typer.Option(
            "--tokens-per-s",
            min=1,
            max=1e9,
            help="What one Classifier reads, as measured: takes the estimate's place.",
            show_default="estimated",
        ),
    ] = None,
    pass_start_ms: Annotated[
        float | None,
        typer.Option(
            "--pass-start-ms",
            min=0,
            max=6e5,
            help="What a pass takes beside its tokens, as measured.",
            show_default="estimated",
        ),
    ] = None,
    texts_per_request: Annotated[
        int, typer.Option("--texts-per-request", min=1, help="Texts in one request.")
    ] = 1,
    quiet_rps: Annotated[
        float | None,
        typer.Option(
            "--quiet-rps",
            min=0.001,
            help="Requests a second in the quietest hour: min_replicas are for these.",
            show_default="as at the peak",
        ),
    ] = None,
    spare: Annotated[
        int,
        typer.Option(min=0, max=10_000, help="Classifiers beyond the need: so many may be lost."),
    ] = 1,
    gpus_per_node: Annotated[
        int | None,
        typer.Option("--gpus-per-node", min=1, max=64, show_default="as clouds sell them"),
    ] = None,
    cpus_per_node: Annotated[int, typer.Option("--cpus-per-node", min=2, max=1024)] = 16,
    price_per_hour: Annotated[
        float | None,
        typer.Option("--price-per-hour", min=0, max=1e6, help="Of a GPU node, in any currency."),
    ] = None,
    cpu_price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--cpu-price-per-hour", min=0, max=1e6, help="Of a CPU node.", show_default="0"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A Serve YAML to write the plan into, comments and all.",
            show_default="a fragment of its own",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the YAML goes; stdout else.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as one object.")] = False,
) -> None:
    """Plan replicas, nodes and a ready config for a traffic and a latency.

    Computed from queues (docs/scale.md), not measured: GPUs' speeds are estimates until
    --tokens-per-s says what scripts/gpu_check.py or `rayclassify tune` found.

    Example: `rayclassify plan --rps 50000 --p99-ms 50 --tokens-mean 80 --gpu h100`
    """
    from deployments.planning.gpus import GPUS, SHAPES, estimated, shape_of
    from deployments.planning.plan import MAX_BATCH_TOKENS, Hardware, Impossible, Wish
    from deployments.planning.plan import plan as planned
    from deployments.planning.queueing import Device
    from deployments.planning.rendered import BASE, NotOurs, serve_config
    from deployments.planning.service_times import MEASURED, Traffic

    gpu = gpu.lower()
    if gpu != CPU and gpu not in GPUS:
        raise typer.BadParameter(
            f"{gpu!r}; one of {', '.join(GPUS)}, or {CPU} with --tokens-per-s", param_hint="--gpu"
        )
    if gpu == CPU and tokens_per_s is None:
        raise typer.BadParameter(
            "a CPU's speed can't be estimated; measure it with `rayclassify tune`",
            param_hint="--tokens-per-s",
        )
    if quiet_rps is not None and quiet_rps > rps:
        raise typer.BadParameter(
            f"{quiet_rps:g} is more than --rps {rps:g}", param_hint="--quiet-rps"
        )
    if gpu == CPU and price_per_hour is not None:
        raise typer.BadParameter(
            f"there is no GPU node with --gpu {CPU}; say --cpu-price-per-hour",
            param_hint="--price-per-hour",
        )
    if gpu != CPU and price_per_hour is None and cpu_price_per_hour is not None:
        raise typer.BadParameter(
            "the GPU nodes' price is missing; say --price-per-hour too",
            param_hint="--cpu-price-per-hour",
        )
    device = Device(0.0, tokens_per_s or 1.0, MAX_BATCH_TOKENS)
    if gpu != CPU:
        try:
            shape = shape_of(model)
        except ValueError as exc:
            _fail(str(exc), WRONG)
        guess = estimated(GPUS[gpu], shape, tokens_mean, MAX_BATCH_TOKENS)
        device = replace(guess, tokens_per_s=tokens_per_s or guess.tokens_per_s)
    if pass_start_ms is not None:
        device = replace(device, start_s=pass_start_ms / 1_000)
    hardware = Hardware(
        0 if gpu == CPU else gpus_per_node or GPUS[gpu].per_node,
        cpus_per_node,
        price_per_hour,
        cpu_price_per_hour,
    )
    wish = Wish(rps, p99_ms / 1_000, Traffic(tokens_mean, texts_per_request), spare=spare)
    try:
        found = planned(wish, device, hardware, MEASURED)
        quiet = planned(replace(wish, rps=quiet_rps or rps), device, hardware, MEASURED)
    except Impossible as exc:
        _fail(str(exc), NO)
    try:
        base = BASE if config is None else config.read_text(encoding="utf-8")
        # A config keeps its own model: what is given then says how large that is.
        named = model not in SHAPES and Path(model).is_dir()
        own = model if named and config is None else None
        written = serve_config(found, quiet, base, own)
    except (OSError, UnicodeDecodeError, NotOurs) as exc:
        _fail(f"{config}: {exc}", WRONG)
    _check(written, config)
    if output is not None:
        try:
            output.write_text(written, encoding="utf-8")
        except OSError as exc:
            _fail(f"{output}: {exc.strerror}", WRONG)
    is_estimate = tokens_per_s is None
    if as_json:
        typer.echo(json.dumps(_facts(found, quiet, gpu, is_estimate, written), indent=2))
        return
    _print(found, quiet, gpu, is_estimate)
    if output is not None:
        typer.echo(f"{output} written. Next: rayclassify check --config-only {output}")
    else:
        typer.echo(f"\n{written}", nl=False)


def _facts(found: Plan, quiet: Plan, gpu: str, is_estimate: bool, written: str) -> dict[str, Any]:
    from deployments.planning.rendered import replicas, workers

    return {
        "gpu": gpu,
        "speed": "estimate" if is_estimate else "as measured",
        "tokens_per_s": round(found.device.tokens_per_s),
        "pass_start_ms": found.device.start_s * 1e3,
        "max_batch_tokens": found.device.max_batch_tokens,
        "p99_ms": round(found.p99_s * 1e3, 2),
        "replicas": {
            name: {"min": least, "max": most}
            for name, (least, most) in replicas(found, quiet).items()
        },
        "classifiers_for_p99": found.for_p99,
        "classifiers_for_policy": found.for_policy,
        "nodes": {"cpu": found.cpu_nodes, "gpu": found.gpu_nodes},
        "worker_groups": workers(found, quiet),
        "price_per_hour": found.price_per_hour,
        "price_per_million_texts": found.price_per_million_texts,
        "warnings": list(found.warnings),
        "config": written,
    }


def _print(found: Plan, quiet: Plan, gpu: str, is_estimate: bool) -> None:
    from deployments.planning.gpus import GPUS, UTILISATION
    from deployments.planning.rendered import replicas, workers

    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("deployment", "replicas", "busy", "why so many"):
        table.add_column(name, justify="right" if name in ("replicas", "busy") else "left")
    steady, wish = found.steady, found.wish
    why = {
        "Tokenizer": (steady.ingress_busy, "one event loop each; few wait at one"),
        "Classifier": (
            steady.classifier_busy,
            f"{found.for_p99} for the p99, {wish.spare} spare",
        ),
        "Postprocessor": (steady.postprocessor_busy, "one event loop each"),
    }
    for name, (least, most) in replicas(found, quiet).items():
        number = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        table.add_row(name, number, f"{why[name][0]:.0%}", why[name][1])
    out.print(table)
    lines = [
        f"p99 {found.p99_s * 1e3:.1f} ms of {wish.p99_s * 1e3:g}; p50 "
        f"{steady.quantile_s(0.5) * 1e3:.1f} ms; max_batch_tokens "
        f"{found.device.max_batch_tokens:,}"
    ]
    if found.hardware.gpus_per_node:
        lines.append(f"nodes: {found.gpu_nodes:,} of {found.hardware.gpus_per_node} {gpu}, "
                     f"{found.cpu_nodes:,} of {found.hardware.cpus_per_node} CPUs")  # fmt: skip
    else:
        lines.append(f"nodes: {found.gpu_nodes:,} for Classifiers, {found.cpu_nodes:,} for all "
                     f"else, of {found.hardware.cpus_per_node} CPUs")  # fmt: skip
    for name, counts in workers(found, quiet).items():
        told = ", ".join(f"{key}: {value}" for key, value in counts.items())
        lines.append(f"KubeRay, workerGroupSpecs, groupName {name}: {told}")
    if found.price_per_million_texts is not None:
        a_million = f"{found.price_per_million_texts:,.4f} a million texts"
        lines.append(f"{found.price_per_hour:,.2f} an hour, {a_million} at the peak")
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)
    if is_estimate:
        err.print(
            f"Estimate: {found.device.tokens_per_s:,.0f} tokens/s are {UTILISATION:.0%} of the "
            f"{GPUS[gpu].peak_tflops:,g} TFLOPS of {GPUS[gpu].name} ({GPUS[gpu].source}). Measure, "
            "and plan with --tokens-per-s.",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    if found.for_policy > found.replicas.classifiers:
        err.print(
            f"The scaling policy would go to {found.for_policy:,} Classifiers, as short passes "
            f"make replicas busy; max_replicas holds it at {found.replicas.classifiers:,}.",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    for warning in found.warnings:
        err.print(f"warning: {warning}", soft_wrap=True, markup=False)


def _check(written: str, config: Path | None) -> None:
    """Nothing is handed out that `rayclassify check` refuses."""
    import yaml

    from deployments.cli.check import print_problems
    from deployments.config.check import check_config

    if problems := check_config(yaml.safe_load(written)):
        typer.echo(f"error: {config or 'the plan'} as a config:", err=True)
        print_problems(problems)
        raise typer.Exit(WRONG)


def _fail(message: str, code: int) -> Any:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
