"""What Serve tells of an application, in our terms: the JSON of the REST API in, facts out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from deployments.config.keys import BUILDER
from deployments.deploying.room import Node, Resources, has_room, in_use, why_no_room
from deployments.pipeline.causes import causes

RUNNING, DEPLOYING, FAILED, UNHEALTHY, DELETING = (
    "RUNNING",
    "DEPLOYING",
    "DEPLOY_FAILED",
    "UNHEALTHY",
    "DELETING",
)
# Serve says so of replicas that are slow, and of none that failed.
_SLOW = "have taken more than"
# Before the name of an error's class, which tells enough with its message.
_MODULE = re.compile(r"^(?:[a-z_]\w*\.)+(?=[A-Z]\w*:)")


_EPSILON = 1e-6  # Ray counts in ten-thousandths


class Verdict(Enum):
    """How a deploy stands."""

    SERVED = "served"
    WAITING = "waiting"
    FAILED = "failed"
    REPLACED = "replaced"  # somebody else has deployed something else meanwhile


@dataclass(frozen=True, slots=True)
class Stage:
    """One deployment. placed: replicas that start on some node; unplaced: those without one.

    on_nodes: IP address of the node of each replica, in any state, where Serve knows it.
    """

    name: str
    status: str
    message: str
    wanted: int
    running: int
    placed: int
    unplaced: int
    needs: dict[str, float]
    on_nodes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.status == FAILED

    def progress(self) -> str:
        """As "1 of 2 running, 1 starting"."""
        parts = [f"{self.running} of {self.wanted} running"]
        if self.placed:
            parts.append(f"{self.placed} starting")
        if self.unplaced:
            parts.append(f"{self.unplaced} waiting for a place")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class AppState:
    """One application. config: as deployed, None where it was not deployed by config."""

    name: str
    status: str
    message: str
    config: dict[str, Any] | None
    by_config: bool
    since: float
    stages: tuple[Stage, ...]

    @property
    def is_ours(self) -> bool:
        return self.config is not None and self.config.get("import_path") == BUILDER

    def reasons(self) -> list[str]:
        """Why it does not get on or has failed, the errors alone; empty if nothing was said."""
        found = [
            f"{stage.name}: {line}"
            for stage in self.stages
            if stage.message and _SLOW not in stage.message
            for line in _cause(stage.message)
        ]
        if not found and self.message:
            found = _cause(self.message)
        return list(dict.fromkeys(found))


def read_applications(details: dict[str, Any]) -> dict[str, AppState]:
    """Name → application, of the answer of /api/serve/applications/."""
    return {
        name: read_application(name, app)
        for name, app in (details.get("applications") or {}).items()
    }


def read_application(name: str, app: dict[str, Any]) -> AppState:
    """One of them; `serve.status()` has fewer of the same facts under the same names."""
    stages = tuple(_read_stage(n, d) for n, d in (app.get("deployments") or {}).items())
    return AppState(
        name=name,
        status=str(app.get("status")),
        message=str(app.get("message") or ""),
        config=app.get("deployed_app_config"),
        by_config=app.get("source") == "declarative",
        since=float(app.get("last_deployed_time_s") or 0.0),
        stages=stages,
    )


def _read_stage(name: str, deployment: dict[str, Any]) -> Stage:
    replicas = deployment.get("replicas") or []
    starting = [r for r in replicas if r.get("state") in {"STARTING", "UPDATING", "RECOVERING"}]
    placed = sum(bool(replica.get("node_id")) for replica in starting)
    return Stage(
        name=name,
        status=str(deployment.get("status")),
        message=str(deployment.get("message") or ""),
        wanted=int(deployment.get("target_num_replicas") or 0),
        running=sum(replica.get("state") == "RUNNING" for replica in replicas),
        placed=placed,
        unplaced=len(starting) - placed,
        needs={k: float(v) for k, v in (deployment.get("required_resources") or {}).items()},
        on_nodes=tuple(str(r.get("node_ip")) for r in replicas if r.get("node_id")),
    )


def verdict(app: AppState | None, asked: dict[str, Any]) -> Verdict:
    """How a deploy of the application's config `asked` stands."""
    if app is None or app.status == DELETING:
        return Verdict.REPLACED
    if app.config is not None and not same_config(app.config, asked):
        return Verdict.REPLACED
    if app.status == FAILED:
        return Verdict.FAILED
    return Verdict.SERVED if app.status == RUNNING else Verdict.WAITING


def same_config(deployed: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether Serve was given these. It adds its own logging_config where a config has none."""
    without = [{k: v for k, v in c.items() if k != "logging_config"} for c in (deployed, asked)]
    return without[0] == without[1]


def not_of_replicas(apps: Iterable[AppState], nodes: Sequence[Node]) -> Resources:
    """What is in use on the nodes by none of the replicas that Serve knows a node of."""
    left = in_use(nodes)
    for stage in (stage for app in apps for stage in app.stages):
        for name, amount in stage.needs.items():
            left[name] = left.get(name, 0.0) - amount * len(stage.on_nodes)
    return left


def what_it_waits_for(
    app: AppState, nodes: Sequence[Node], taken: Mapping[str, float] = MappingProxyType({})
) -> str:
    """One line for a person who waits: the most telling of what holds an application up.

    taken: what came into use lately, by nobody that Serve knows. It may be a replica's that has its
    place already: Serve hears of its node only once its process has started.
    """
    reasons = app.reasons()
    if reasons:
        return f"tried again after: {reasons[-1]}"
    for stage in app.stages:
        may_have_its_place = all(
            taken.get(name, 0.0) + _EPSILON >= amount for name, amount in stage.needs.items()
        )
        if stage.unplaced and nodes and not may_have_its_place and not has_room(stage.needs, nodes):
            return why_no_room(stage.name, stage.needs, nodes)
    waiting = [stage for stage in app.stages if stage.status not in {"HEALTHY", FAILED}]
    if not waiting:
        return "Serve builds the application"
    return "; ".join(f"{stage.name}: {stage.progress()}" for stage in waiting)


def _cause(message: str) -> list[str]:
    """The last error that is not Ray's envelope around another."""
    lines = message.splitlines()
    inner = [line for line in lines if not line.startswith("ray.exceptions.RayTaskError")]
    found = causes(inner, at_most=1) or causes(lines, at_most=1)
    return [_MODULE.sub("", line.strip()) for line in found]
