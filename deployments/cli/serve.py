"""`rayclassify serve`: check, start, wait, follow, stop."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from deployments.cli.check import DEFAULT_CONFIG, ConfigPath, checked_config
from deployments.cli.exit_codes import DONE, NO
from deployments.launch import ports
from deployments.launch.environment import cluster_address, host_of
from deployments.launch.ingress import choose_ingress
from deployments.launch.kept_logs import LOG_FILE, RUN_DIRS, RUNS, home, keep, keep_what_died
from deployments.launch.plan import Plan, read_plan
from deployments.launch.preflight import preflight
from deployments.launch.targets import METRICS_PORT, announced
from deployments.launch.token_file import NoToken, secure_token

if TYPE_CHECKING:
    from deployments.launch.launcher import Launcher, StopSignals


def serve(
    config: ConfigPath = DEFAULT_CONFIG,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", help="How long the start may take.", min=1)
    ] = 300.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all that Ray and Serve print.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            help="Where Prometheus finds the metrics.",
            envvar="RAYCLASSIFY_METRICS_PORT",
            show_default=f"{METRICS_PORT}, or where that is taken a free one",
            min=1,
            max=65_535,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Start although the machine failed a check.")
    ] = False,
    keep_logs: Annotated[
        int, typer.Option("--keep-logs", help="Of how many ended runs the logs are kept.", min=0)
    ] = RUNS,
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
        _check_machine(plan, loaded, force, metrics_port)
        ingress = choose_ingress(plan.wants_haproxy)
        console.print(str(ingress))
    else:
        ingress = choose_ingress(wanted=False)
        plan = replace(plan, host=host_of(address))
        console.print(
            f"RAY_ADDRESS is {address}: deploying into that cluster. Ctrl-C shuts Serve down there "
            "and leaves the cluster running."
        )
    keep_what_died(keep_logs)
    try:
        launcher = Launcher(
            plan, ingress, console, verbose, metrics_port or ports.claimed(METRICS_PORT)
        )
    except OSError as exc:
        _complain(f"error: {RUN_DIRS} can't be written: {exc.strerror}.")
        raise typer.Exit(NO) from None
    raise typer.Exit(_run(launcher, loaded, console, timeout_s, keep_logs))


def _check_machine(
    plan: Plan, config: dict[str, Any], force: bool, metrics_port: int | None
) -> None:
    found = preflight(plan, config, metrics_port)
    for problem in found:
        _complain(f"{'error' if problem.fatal and not force else 'warning'}: {problem}")
    if any(problem.fatal for problem in found) and not force:
        raise typer.Exit(NO)
    try:
        if told := secure_token(os.environ, make=not _is_without_token()):
            _complain(f"warning: {told}")
    except NoToken as exc:
        _complain(f"error: {exc}")
        raise typer.Exit(NO) from None


def _run(
    launcher: Launcher, config: dict[str, Any], console: Console, timeout_s: float, keep_logs: int
) -> int:
    from deployments.launch.launcher import StopSignals
    from deployments.launch.progress import StartFailed

    ready, failed, stop = False, False, StopSignals()
    try:
        console.print(f"Log: {launcher.log}")
        launcher.start(_pinned(config))
        ready = launcher.wait_ready(stop, timeout_s)
        if ready:
            _announce(launcher.plan, console, _for_drivers())
            _follow(launcher, stop, console)
    except StartFailed as exc:
        failed = True
        _complain(f"error: {exc}", *(f"  {line}" for line in exc.lines))
    finally:
        launcher.tell("Stopping ... (Ctrl-C again: at once)")
        survivors = launcher.stop(stop, ready)
    if survivors:
        pids = " ".join(str(process.pid) for process in survivors)
        _complain(f"error: these would not end: kill -9 {pids}")
        _complain(f"The whole log: {launcher.log}")
        return NO
    kept = keep(launcher.run_dir, max(keep_logs, int(failed)))
    if failed:
        _complain(f"The whole log: {kept / LOG_FILE if kept else launcher.log}")
        return NO
    if kept:
        launcher.tell(f"Its logs are kept: {kept}")
    elif keep_logs:
        launcher.tell(
            f"warning: {home()} can't be written: its logs stay in {launcher.run_dir}. "
            "RAYCLASSIFY_STATE_DIR names another directory."
        )
    launcher.tell("Stopped.")
    return DONE


def _pinned(config: dict[str, Any]) -> dict[str, Any]:
    """With each model named as `rayclassify deploy` names it: a later deploy that changes only what
    is applied live then restarts nothing."""
    from deployments.deploying.merging import CannotDeploy
    from deployments.deploying.pinning import pinned

    try:
        apps = [pinned(app) for app in config.get("applications") or []]
    except CannotDeploy:
        return config  # a replica says what is wrong, with all that it knows
    return {**config, "applications": apps}


def _follow(launcher: Launcher, stop: StopSignals, console: Console) -> None:
    """Until somebody asks to stop. Meanwhile Prometheus finds the metrics of a Ray of ours."""
    if cluster_address() is not None:
        launcher.follow(stop)
        return
    port = launcher.metrics_port
    with announced(launcher.plan.port, port) as targets:
        found = f" (file_sd_configs: {targets})" if targets else ""
        console.print(f"Metrics for Prometheus: http://localhost:{port}/metrics{found}")
        console.print("Ctrl-C stops it.")
        launcher.follow(stop)


def _complain(*lines: str) -> None:
    with contextlib.suppress(OSError):
        for line in lines:
            typer.echo(line, err=True)


def _for_drivers() -> str:
    """What a driver's environment needs to join the Ray that this process started; empty where it
    is somebody else's. To an address that is named Ray sends its token only where it is told to."""
    from deployments.deploying.clusters import local_rays

    mode = "" if _is_without_token() else "RAY_AUTH_MODE=token "
    addresses = (ray.gcs_address for ray in local_rays() if ray.owner == os.getpid())
    return next((f"{mode}RAY_ADDRESS={address}" for address in addresses), "")


def _is_without_token() -> bool:
    return os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"


def _announce(plan: Plan, console: Console, for_drivers: str = "") -> None:
    # As people keep it in their shell; `rayclassify classify` reads the same variable.
    key = '-H "Authorization: Bearer $RAYCLASSIFY_KEY" ' if plan.wants_key else ""
    console.print(
        f"Ready: {plan.url or '/'}",
        f"  curl {plan.url}/classify {key}-H 'Content-Type: application/json' "
        '-d \'{"text": "质量很好，会再来"}\'',
        f"  to try it in a browser: {plan.url}/   documentation: {plan.url}/docs",
        *([f"  gRPC (Open Inference Protocol): {plan.grpc_address}"] if plan.grpc_port else ()),
        # Without it a driver starts a Ray of its own, and finds no service there.
        *([f"  handles, from Python: {for_drivers} python ..."] if for_drivers else ()),
        "  logs of all replicas, now and later: rayclassify logs --follow",
        sep="\n",
        markup=False,
        soft_wrap=True,
    )
