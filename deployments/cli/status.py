"""`rayclassify status`: what is deployed, what serves, and why it has so many replicas or none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli.deploy import Address, AppName, fail, find, told
from deployments.cli.exit_codes import NO
from deployments.cli.formats import Format, FormatOption, JsonOption, chosen, print_csv, print_json
from deployments.deploying.kept import Kept
from deployments.deploying.pinning import shown_model
from deployments.deploying.room import Node, has_room, read_nodes, why_no_room
from deployments.deploying.serve_state import (
    FAILED,
    RUNNING,
    AppState,
    read_applications,
    same_config,
    what_it_waits_for,
)
from deployments.scaling.policy import STATE_FILE
from deployments.scaling.report import lines as scaling_lines
from deployments.scaling.report import read_state
from deployments.scaling.starts import START_FILE, Start, read_start
from deployments.settings import PARTS

if TYPE_CHECKING:
    from deployments.deploying.dashboard import Dashboard

_COLUMNS = (
    *("application", "application_status", "deployment", "status"),
    *("wanted", "running", "starting", "kept_back"),
)
# What a failed update means for the stages it did not reach, and for those it did.
_STAYED = "its update failed: runs the config before, and is neither replaced nor scaled"


def status(
    address: Address = None,
    app: AppName = None,
    format_: FormatOption = None,
    as_json: JsonOption = False,
    starts: Annotated[
        bool, typer.Option("--starts", help="How long each Classifier took to start, by steps.")
    ] = False,
) -> None:
    """What is deployed, what serves, how busy it is and why it has so many replicas; why something
    does not serve, and how to get back. Its exit code can be an alert.
    """
    form = chosen(format_, as_json)
    from deployments.deploying.dashboard import Dashboard

    with told():
        cluster = find(address)
        dashboard = Dashboard(cluster)
        details = dashboard.serve_details()
        there = read_applications(details)
        if app is not None and app not in there:
            listed = ", ".join(there) or "none"
            fail(f"no application {app!r} there. There is: {listed}.")
        states = [state for state in there.values() if app in (None, state.name)]
        waiting = any(stage.unplaced for state in states for stage in state.stages)
        nodes = read_nodes(dashboard.nodes()) if waiting else []
        kept = {state.name: Kept(cluster.url, state.name) for state in states}
        scaling = {state.name: _scaling(dashboard, details, state) for state in states}
        metrics = dashboard.metrics()
        begun = {s.name: _starts(dashboard, details, s.name) if starts else [] for s in states}
    if form is not Format.table:
        found = {
            state.name: {
                **to_json(state, kept[state.name], nodes, scaling[state.name]),
                "starts": [start.to_dict(asked_for) for _, asked_for, start in begun[state.name]],
            }
            for state in states
        }
        if form is Format.json:
            print_json({"address": cluster.url, "metrics": metrics, "applications": found})
        else:
            print_csv(_COLUMNS, _rows(found))
    else:
        typer.echo(f"{cluster.url} ({cluster.how})")
        for state in states:
            typer.echo("\n".join(shown(state, kept[state.name], nodes, scaling[state.name])))
            for name, asked_for, start in begun[state.name]:
                typer.echo(f"  Classifier {name}:")
                for line in start.lines(asked_for):
                    typer.echo(f"  {line}")
        if metrics:
            typer.echo(f"metrics for Prometheus: {' '.join(metrics)}")
        if not states:
            typer.echo("no application is deployed there: `rayclassify deploy CONFIG`")
    if not states or any(state.status != "RUNNING" for state in states):
        raise typer.Exit(NO)


def _rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each deployment, of `to_json`'s values."""
    for name, app in found.items():
        for deployment, stage in app["deployments"].items():
            yield {
                **stage,
                "application": name,
                "application_status": app["status"],
                "deployment": deployment,
            }


def _scaling(dashboard: Dashboard, details: dict[str, Any], app: AppState) -> dict[str, Any]:
    """Deployment → what its autoscaling policy last wrote, where it is ours."""
    node = str((details.get("controller_info") or {}).get("node_id") or "")
    if not node or not app.is_ours:
        return {}
    found = {}
    for stage in app.stages:
        name = STATE_FILE.format(app=app.name, deployment=stage.name)
        if state := read_state(dashboard.log_file(node, f"serve/{name}")):
            found[stage.name] = state
    return found


def _starts(
    dashboard: Dashboard, details: dict[str, Any], app: str
) -> list[tuple[str, float, Start]]:
    """Of each Classifier that has written it down: its name, when it was asked for, its start."""
    deployments = details["applications"][app].get("deployments", {})
    found = []
    for deployment in ("Classifier", *PARTS.values()):
        for replica in (deployments.get(deployment) or {}).get("replicas") or []:
            name = str(replica.get("replica_id"))
            file = START_FILE.format(app=app, deployment=deployment, replica=name)
            start = read_start(dashboard.log_file(str(replica.get("node_id")), f"serve/{file}"))
            if start:
                found.append((name, float(replica["start_time_s"]), start))
    return found


def shown(
    app: AppState, kept: Kept, nodes: list[Node], scaling: dict[str, Any] | None = None
) -> list[str]:
    """Lines: what is asked for, what serves, why something does not, and the way back.

    scaling: deployment → the state that its policy wrote.
    """
    from deployments.deploying.rollout import to_go_back_to  # with requests, which --help needs not

    lines = [f"{app.name}: {app.status}, deployed {_ago(app.since)} ago"]
    width = max((len(stage.name) for stage in app.stages), default=0)
    for stage in app.stages:
        remark = f"   {_STAYED}" if stage.failed and stage.running else ""
        if stage.failed and not stage.running:
            remark = "   failed to start"
        lines.append(f"  {stage.name:<{width}}  {stage.progress()}{remark}")
        if stage.unplaced and nodes and not has_room(stage.needs, nodes):
            lines.append(f"  {'':<{width}}    {why_no_room(stage.name, stage.needs, nodes)}")
        if scaling and stage.name in scaling:
            lines += [f"  {'':<{width}}    {said}" for said in scaling_lines(scaling[stage.name])]
    if app.config is None:
        return [*lines, "  deployed by serve.run(), not by config"]
    if app.status == RUNNING:
        return [*lines, f"  serves: {shown_model(app.config)}"]
    lines.append(f"  asked for: {shown_model(app.config)}")
    lines += [f"  why: {reason}" for reason in _why(app, nodes)]
    back = to_go_back_to(kept.served(), app)
    if back is not None:
        lines.append(f"  served before: {shown_model(back.app)}, at {back.when}: {back.path}")
        lines.append("  to get back: `rayclassify rollback`")
    else:
        lines.append("  to get back: `rayclassify deploy` with the config that served before")
    return lines


def to_json(
    app: AppState, kept: Kept, nodes: list[Node], scaling: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The same as plain values."""
    from deployments.deploying.rollout import to_go_back_to

    served = kept.served()
    back = to_go_back_to(served, app)
    now = next((e for e in served if app.config and same_config(app.config, e.app)), None)
    return {
        "status": app.status,
        "deployed_at_s": app.since,
        "asked_for": shown_model(app.config) if app.config else None,
        "has_served": now is not None or app.status == RUNNING,
        "deployments": {
            stage.name: {
                "status": stage.status,
                "wanted": stage.wanted,
                "running": stage.running,
                "starting": stage.placed + stage.unplaced,
                "kept_back": stage.failed and stage.running > 0,
                "autoscaling": (scaling or {}).get(stage.name),
            }
            for stage in app.stages
        },
        "why": [] if app.status == RUNNING else _why(app, nodes),
        "rollback_to": str(back.path) if back is not None else None,
    }


def _why(app: AppState, nodes: list[Node]) -> list[str]:
    if app.status == FAILED:
        return app.reasons()
    return [what_it_waits_for(app, nodes)]


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
