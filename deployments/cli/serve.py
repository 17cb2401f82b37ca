"""`rayclassify serve`: check, start, wait, follow, stop."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from deployments.cli.check import (
    BAD_CONFIG,
    DEFAULT_CONFIG,
    ConfigPath,
    print_problems,
    read_config,
)

if TYPE_CHECKING:
    from deployments.launch.launcher import Launcher
    from deployments.launch.plan import Plan


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
    instead. Exit code 2: the config is wrong; 1: the start failed.

    Example: `rayclassify serve serve_config.yaml`
    """
    loaded, problems = read_config(config)
    if problems:
        print_problems(problems)
        raise typer.Exit(BAD_CONFIG)

    from deployments.launch.environment import cluster_address, host_of
    from deployments.launch.ingress import choose_ingress
    from deployments.launch.launcher import Launcher
    from deployments.launch.plan import read_plan

    console = Console(highlight=False)
    plan = read_plan(loaded)
    address = cluster_address()
    if address is None:
        _check_machine(plan, loaded, force)
        _secure_token()
        ingress = choose_ingress(plan.wants_haproxy)
        console.print(str(ingress), soft_wrap=True)
    else:
        ingress = choose_ingress(wanted=False)
        plan = replace(plan, host=host_of(address))
        console.print(
            f"RAY_ADDRESS is {address}: deploying into that cluster. Ctrl-C shuts Serve down there "
            "and leaves the cluster running.",
            soft_wrap=True,
        )
    launcher = Launcher(plan, ingress, console, verbose)
    raise typer.Exit(_run(launcher, loaded, console, timeout_s))


def _check_machine(plan: Plan, config: dict[str, Any], force: bool) -> None:
    from deployments.launch.machine_check import check_files
    from deployments.launch.preflight import Finding, preflight

    findings = preflight(plan)
    said = [finding.message for finding in findings]
    findings += [Finding(str(p)) for p in check_files(config) if p.message not in said]
    for finding in findings:
        kind = "error" if finding.fatal and not force else "warning"
        typer.echo(f"{kind}: {finding.message}", err=True)
    if any(finding.fatal for finding in findings) and not force:
        raise typer.Exit(1)


def _secure_token() -> None:
    from deployments.launch.token_file import secure_token

    make = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    if told := secure_token(os.environ, make):
        typer.echo(f"warning: {told}", err=True)


def _run(launcher: Launcher, config: dict[str, object], console: Console, timeout_s: float) -> int:
    from deployments.launch.launcher import StartFailed
    from deployments.launch.signals import StopSignals

    ready, failed = False, False
    with StopSignals() as stop:
        try:
            console.print(f"Log: {launcher.run.log}", soft_wrap=True)
            launcher.start(config)
            ready = launcher.wait_ready(stop, timeout_s)
            if ready:
                _announce(launcher.plan, console)
                launcher.follow(stop)
        except StartFailed as exc:
            failed = True
            _complain(f"error: {exc.message}", *(f"  {line}" for line in exc.lines))
        finally:
            _say(console, "Stopping ... (Ctrl-C again: at once)")
            survivors = launcher.stop(stop, ready)
    if survivors:
        pids = " ".join(str(process.pid) for process in survivors)
        _complain(f"error: these would not end: kill -9 {pids}")
        return 1
    if failed:
        _complain(f"The whole log: {launcher.run.log}")
        return 1
    launcher.run.remove()
    _say(console, "Stopped.")
    return 0


def _say(console: Console, line: str) -> None:
    """Prints, if anybody still listens: a closed terminal or pipe must not keep us from stopping.

    rich ends the programme by SystemExit where the pipe is closed.
    """
    with contextlib.suppress(OSError, SystemExit):
        console.print(line, soft_wrap=True)


def _complain(*lines: str) -> None:
    with contextlib.suppress(OSError):
        for line in lines:
            typer.echo(line, err=True)


def _announce(plan: Plan, console: Console) -> None:
    # As people keep it in their shell; `rayclassify classify` reads the same variable.
    key = '-H "Authorization: Bearer $RAYCLASSIFY_KEY" ' if plan.wants_key else ""
    lines = (
        f"Ready: {plan.url or '/'}",
        f"  curl {plan.url}/classify {key}-H 'Content-Type: application/json' "
        '-d \'{"text": "质量很好，会再来"}\'',
        f"  documentation, and a form to try it: {plan.url}/docs",
        "Ctrl-C stops it.",
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
