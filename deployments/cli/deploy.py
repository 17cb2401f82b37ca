"""`rayclassify deploy` and `rollback`: change what a running cluster serves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from deployments.cli.check import DEFAULT_CONFIG, ConfigPath, checked_config
from deployments.cli.exit_codes import NO, UNREACHABLE, WRONG

if TYPE_CHECKING:
    from deployments.cli.deploy_run import DeployRun
    from deployments.deploying.clusters import Cluster
    from deployments.deploying.dashboard import Dashboard
    from deployments.deploying.serve_state import AppState

Address = Annotated[
    str | None,
    typer.Option(
        help="Ray's dashboard, as http://HEAD:8265; else RAY_API_SERVER_ADDRESS, "
        "RAY_DASHBOARD_ADDRESS, RAY_ADDRESS, or the Ray on this machine."
    ),
]
AppName = Annotated[
    str | None, typer.Option("--app", help="The application, where it is not the only one.")
]
Timeout = Annotated[
    float, typer.Option("--timeout-s", help="How long new replicas may take to serve.", min=1)
]
NoRayService = Annotated[
    bool,
    typer.Option(
        "--no-rayservice", help="On KubeRay: the cluster is a plain RayCluster, of no RayService."
    ),
]
DEFAULT_TIMEOUT_S = 600.0


def deploy(
    config: ConfigPath = DEFAULT_CONFIG,
    address: Address = None,
    app: AppName = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
    rollback_on_failure: Annotated[
        bool,
        typer.Option("--rollback/--no-rollback", help="After a failure, go back to what served."),
    ] = True,
    replace: Annotated[
        bool, typer.Option("--replace", help="Although somebody else's deploy is under way.")
    ] = False,
    no_rayservice: NoRayService = False,
) -> None:
    """Deploy a config's application to a running cluster, and leave its other applications alone.

    Checks the config and the model first; writes the model's commit and fingerprint into what it
    deploys; waits until it serves, and says why it does not get on. What failed is rolled back to
    what served before.

    Example: `rayclassify deploy serve_config.yaml`
    """
    loaded = checked_config(config)

    from deployments.deploying.merging import CannotDeploy, pick_application
    from deployments.deploying.pinning import pinned

    with told():
        cluster = find(address)
        picked = _on_this_machine(loaded, cluster)
        try:
            chosen = pick_application(picked, app)
        except CannotDeploy as exc:
            fail(str(exc), WRONG)
        _check_model(chosen, cluster)
        dashboard = _open(cluster, no_rayservice)
        chosen = pinned(chosen)
        run = _run(dashboard, str(chosen.get("name", "default")), timeout_s)
        with run.rollout.kept.one_at_a_time():
            code = run.deploy(picked, chosen, rollback_on_failure, replace)
    raise typer.Exit(code)


def rollback(
    address: Address = None,
    app: AppName = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
    no_rayservice: NoRayService = False,
) -> None:
    """Deploy the config that served before the one that is deployed now.

    It was kept by `rayclassify deploy`, on this machine; a second rollback undoes the first. Any
    other of the kept files can be given to `rayclassify deploy`.
    """
    from deployments.config.check import load_config
    from deployments.deploying.pinning import changed_since, shown_model
    from deployments.deploying.rollout import to_go_back_to
    from deployments.deploying.serve_state import read_applications

    with told():
        dashboard = _open(find(address), no_rayservice)
        there = read_applications(dashboard.serve_details())
        name = app or _only(list(there.values()))
        run = _run(dashboard, name, timeout_s)
        kept = run.rollout.kept
        entry = to_go_back_to(kept.served(), there.get(name))
        if entry is None:
            fail(
                f"nothing is kept that served before as {name!r} there ({kept.directory}). "
                "Deploy the file that served: `rayclassify deploy CONFIG`."
            )
        typer.echo(f"Back to {shown_model(entry.app)}, which served at {entry.when}: {entry.path}")
        if changed_since(entry.app):
            typer.echo(
                "warning: that model's directory was changed since. Put the old files back, or "
                "its replicas will find another model there than this config names.",
                err=True,
            )
        with kept.one_at_a_time():
            # Not checked: it has served, be it that the check has become stricter since.
            code = run.deploy(load_config(entry.path), entry.app, False, replace=True)
    raise typer.Exit(code)


def _check_model(app: dict[str, Any], cluster: Cluster) -> None:
    from deployments.launch.preflight import check_models

    if not cluster.is_local:
        return  # a directory there need not be here
    problems = list(check_models({"applications": [app]}))
    for problem in problems:
        typer.echo(f"error: {problem.message}", err=True)
    if problems:
        raise typer.Exit(WRONG)


def _on_this_machine(config: dict[str, Any], cluster: Cluster) -> dict[str, Any]:
    """With absolute paths where the cluster sees the same files as this directory."""
    from deployments.launch.environment import child_config
    from deployments.launch.ingress import Ingress

    return child_config(config, Ingress(True, ""), Path.cwd()) if cluster.is_local else config


def find(address: str | None) -> Cluster:
    """The cluster that is meant, with a warning where its token lies open."""
    from deployments.deploying.clusters import find_cluster
    from deployments.launch.token_file import secure_token

    if warning := secure_token(os.environ, make=False):
        typer.echo(f"warning: {warning}", err=True)
    return find_cluster(address)


def _open(cluster: Cluster, no_rayservice: bool) -> Dashboard:
    """The cluster's dashboard, where we may deploy."""
    from deployments.deploying.clusters import managed_by_kuberay
    from deployments.deploying.dashboard import Dashboard

    dashboard = Dashboard(cluster)
    if not no_rayservice and managed_by_kuberay(dashboard.nodes().get("summary") or [], os.environ):
        fail(
            "KubeRay manages this cluster. A RayService deploys what its serveConfigV2 says, and "
            "would put its own back: change the model there (`kubectl edit rayservice`, or render "
            "the manifest anew; see docs/operations.md). If it is a plain RayCluster, which no "
            "RayService owns, say --no-rayservice."
        )
    return dashboard


def _run(dashboard: Dashboard, name: str, timeout_s: float) -> DeployRun:
    from deployments.cli.deploy_run import DeployRun, Talk
    from deployments.deploying.kept import Kept
    from deployments.deploying.rollout import Rollout

    talk = Talk()
    kept = Kept(dashboard.cluster.url, name)
    return DeployRun(Rollout(dashboard, kept, talk.say, talk.now), talk, timeout_s)


def _only(states: list[AppState]) -> str:
    ours = [state.name for state in states if state.is_ours]
    if len(ours) != 1:
        listed = ", ".join(state.name for state in states) or "none"
        fail(f"name the application by --app. There is: {listed}.")
    return str(ours[0])


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What stands in the way, as one line and an exit code."""
    from deployments.deploying.clusters import NoCluster
    from deployments.deploying.dashboard import DashboardError
    from deployments.deploying.merging import CannotDeploy

    try:
        yield
    except (NoCluster, DashboardError) as exc:
        fail(str(exc), UNREACHABLE)
    except CannotDeploy as exc:
        fail(str(exc))


def fail(message: str, code: int = NO) -> NoReturn:
    """Says it and ends."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
