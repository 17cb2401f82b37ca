"""`rayclassify serve`: check, start, wait, follow, stop."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from deployments.cli.check import DEFAULT_CONFIG, ConfigPath, checked_config
from deployments.cli.exit_codes import DONE, NO
from deployments.launch.environment import cluster_address, host_of
from deployments.launch.ingress import choose_ingress
from deployments.launch.plan import Plan, read_plan
from deployments.launch.preflight import preflight
from deployments.launch.token_file import secure_token

if TYPE_CHECKING:
    from deployments.launch.launcher import Launcher


def serve(
    config: ConfigPath = DEFAULT_CONFIG,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", help="How long the start may take.", min=1)
    ] = 300.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all that Ray and Serve print.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Start although the machine failed a check.")
    ] = False,
) -> None:
    """Start the service on this machine; Ctrl-C stops it and all that it started.

    Checks the config and the machine first, starts a Ray of its own with Serve in it, waits until
    the service answers, and prints its address. With RAY_ADDRESS set it deploys into that cluster
    instead.

    Example: `rayclassify serve serve_config.yaml`
    """
    loaded = checked_config(config)

    from deployments.launch.launcher import Launcher

    console = Console(highlight=False, soft_wrap=True)
    plan = read_plan(loaded)
    address = cluster_address()
    if address is None:
        _check_machine(plan, loaded, force)
        ingress = choose_ingress(plan.wants_haproxy)
        console.print(str(ingress))
    else:
        ingress = choose_ingress(wanted=False)
        plan = replace(plan, host=host_of(address))
        console.print(
            f"RAY_ADDRESS is {address}: deploying into that cluster. Ctrl-C shuts Serve down there "
            "and leaves the cluster running."
        )
    raise typer.Exit(_run(Launcher(plan, ingress, console, verbose), loaded, console, timeout_s))


def _check_machine(plan: Plan, config: dict[str, Any], force: bool) -> None:
    found = preflight(plan, config)
    for problem in found:
        _complain(f"{'error' if problem.fatal and not force else 'warning'}: {problem}")
    if any(problem.fatal for problem in found) and not force:
        raise typer.Exit(NO)
    make = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    if told := secure_token(os.environ, make):
        _complain(f"warning: {told}")


def _run(launcher: Launcher, config: dict[str, Any], console: Console, timeout_s: float) -> int:
    from deployments.launch.launcher import StopSignals
    from deployments.launch.progress import StartFailed

    ready, failed, stop = False, False, StopSignals()
    try:
        console.print(f"Log: {launcher.log}")
        launcher.start(config)
        ready = launcher.wait_ready(stop, timeout_s)
        if ready:
            _announce(launcher.plan, console)
            launcher.follow(stop)
    except StartFailed as exc:
        failed = True
        _complain(f"error: {exc}", *(f"  {line}" for line in exc.lines))
    finally:
        launcher.tell("Stopping ... (Ctrl-C again: at once)")
        survivors = launcher.stop(stop, ready)
    if survivors:
        pids = " ".join(str(process.pid) for process in survivors)
        _complain(f"error: these would not end: kill -9 {pids}")
    if failed:
        _complain(f"The whole log: {launcher.log}")
    if survivors or failed:
        return NO
    shutil.rmtree(launcher.run_dir, ignore_errors=True)
    launcher.tell("Stopped.")
    return DONE


def _complain(*lines: str) -> None:
    with contextlib.suppress(OSError):
        for line in lines:
            typer.echo(line, err=True)


def _announce(plan: Plan, console: Console) -> None:
    # As people keep it in their shell; `rayclassify classify` reads the same variable.
    key = '-H "Authorization: Bearer $RAYCLASSIFY_KEY" ' if plan.wants_key else ""
    console.print(
        f"Ready: {plan.url or '/'}",
        f"  curl {plan.url}/classify {key}-H 'Content-Type: application/json' "
        '-d \'{"text": "质量很好，会再来"}\'',
        f"  to try it in a browser: {plan.url}/   documentation: {plan.url}/docs",
        *([f"  gRPC (Open Inference Protocol): {plan.grpc_address}"] if plan.grpc_port else ()),
        "Ctrl-C stops it.",
        sep="\n",
        markup=False,
        soft_wrap=True,
    )
