"""A deploy from its PUT to its end: watched, and taken back where it failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.deploying.dashboard import Dashboard, DashboardError
from deployments.deploying.kept import Kept, Served
from deployments.deploying.merging import (
    CannotDeploy,
    Merged,
    merged,
    nudge_of,
    nudged,
    under_way,
    without_nudge,
)
from deployments.deploying.room import Node, Resources, read_nodes
from deployments.deploying.serve_state import (
    FAILED,
    RUNNING,
    AppState,
    Verdict,
    not_of_replicas,
    read_applications,
    same_config,
    verdict,
    what_it_waits_for,
)
from deployments.deploying.surge import first_wave

_TICK_S = 1.0
# The head node may be away for so long before a deploy is given up.
_PATIENCE_S = 60.0
# Serve decides in its next turn whether a config is new to it.
_SETTLE_S = 1.5
# Ray takes a moment to place a replica where there is room.
_PLACING_S = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. reasons: why it did not serve, in our words; after_s: how long it took."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    after_s: float = 0.0
    timed_out: bool = False


class Rollout:
    """Changes one application of one cluster. `say` gets notes, `now` what is going on."""

    def __init__(self, dashboard: Dashboard, kept: Kept, say: Say, now: Say) -> None:
        self._dashboard, self.kept = dashboard, kept
        self._say, self._now = say, now
        self.session = dashboard.session_name()
        # In use when a deploy began, by other than replicas: jobs, other people's actors.
        self._others: Resources | None = None

    def plan(self, config: dict[str, Any], app: dict[str, Any], replace: bool) -> Merged:
        """What would be sent, by what runs now.

        Raises:
            CannotDeploy: it would harm something, or a deploy is under way (but see `replace`).
        """
        details = self._dashboard.serve_details()
        plan = merged(config, app, details)
        there = read_applications(details).get(plan.app["name"])
        if there is None:
            return plan
        if under_way(there) and not replace and not self._is_ours(there):
            raise CannotDeploy(
                f"application {there.name!r} is {there.status} since "
                f"{_ago(there.since)}, by somebody else's deploy. Wait for its end "
                "(`rayclassify status`), or take its place with --replace."
            )
        if there.config is not None and _same_args(without_nudge(there.config), plan.app):
            if there.status == FAILED:
                # It failed with these very args: for Serve there is nothing to do.
                return nudged(plan, str(int(time.time())))
            if (moment := nudge_of(there.config)) is not None:
                return nudged(plan, moment)  # it serves: no reason to start it anew
        return plan

    def before(self, name: str) -> dict[str, Any] | None:
        """What served last in this run of the cluster, as far as it is known; to go back to."""
        there = read_applications(self._dashboard.serve_details()).get(name)
        if there is not None and there.status == RUNNING and there.config is not None:
            return there.config
        known = (entry.app for entry in self.kept.served() if entry.session == self.session)
        return next(known, None)

    def keep(self, plan: Merged, app: dict[str, Any]) -> Path | None:
        """Keeps a config that serves; returns where, or None if it is the newest kept already.

        Raises:
            OSError: it can't be written.
        """
        newest = next(iter(self.kept.served()), None)
        if newest is not None and newest.session == self.session and newest.app == app:
            return None
        return self.kept.add(plan.document, app, self.session)

    def send(self, plan: Merged, timeout_s: float) -> Outcome:
        """Sends it, and waits until it serves, has failed, or `timeout_s` are over."""
        self.kept.ask(plan.app)
        began = time.monotonic()
        self._dashboard.put(plan.document)
        time.sleep(_SETTLE_S)
        outcome = self._watch(plan, began + timeout_s)
        return Outcome(
            outcome.verdict, outcome.reasons, time.monotonic() - began, outcome.timed_out
        )

    def _watch(self, plan: Merged, deadline: float) -> Outcome:
        answered = placed = time.monotonic()
        while True:
            try:
                details = self._dashboard.serve_details()
                answered = time.monotonic()
            except DashboardError:
                if time.monotonic() > answered + _PATIENCE_S:
                    raise
                self._now("Ray's dashboard does not answer; asking again")
                time.sleep(_TICK_S)
                continue
            apps = read_applications(details)
            app = apps.get(plan.app["name"])
            stands = verdict(app, plan.app)
            if stands is Verdict.SERVED:
                return Outcome(stands)
            if stands is not Verdict.WAITING or app is None:
                return Outcome(stands, tuple(app.reasons()) if app else ())
            if not any(stage.unplaced for stage in app.stages):
                placed = answered
            nodes = self._nodes() if answered > placed + _PLACING_S else []
            waits_for = what_it_waits_for(app, nodes, self._taken(apps, nodes))
            self._now(waits_for)
            if time.monotonic() > deadline:
                return Outcome(Verdict.FAILED, (waits_for,), timed_out=True)
            time.sleep(_TICK_S)

    def say_where_there_is_room(self, plan: Merged) -> None:
        """Of an update, where its new replicas find room beside the old ones, and where not."""
        apps = read_applications(self._dashboard.serve_details())
        there = apps.get(plan.app["name"])
        if there is None or there.status != RUNNING or there.config is None:
            return
        nodes = read_nodes(self._dashboard.nodes())
        self._others = not_of_replicas(apps.values(), nodes)
        for wave in first_wave(there, plan.app, nodes) if nodes else ():
            self._say(wave.said())

    def _taken(self, apps: dict[str, AppState], nodes: list[Node]) -> Resources:
        """What came into use since the deploy began, by nobody that Serve knows the node of."""
        if self._others is None or not nodes:
            return {}
        now = not_of_replicas(apps.values(), nodes)
        return {name: amount - self._others.get(name, 0.0) for name, amount in now.items()}

    def _nodes(self) -> list[Node]:
        try:
            return read_nodes(self._dashboard.nodes())
        except DashboardError:
            return []

    def _is_ours(self, there: AppState) -> bool:
        """Whether what is under way was begun here, by who has ended: the lock is ours."""
        asked = self.kept.asked()
        return asked is not None and there.config is not None and same_config(there.config, asked)


def to_go_back_to(kept: list[Served], now: AppState | None) -> Served | None:
    """The newest config that served and is not the one that is deployed now."""
    deployed = now.config if now is not None else None
    for entry in kept:
        if deployed is None or not same_config(without_nudge(deployed), without_nudge(entry.app)):
            return entry
    return None


def _same_args(deployed: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether Serve would build nothing anew for `asked`; the rest of it is applied live."""
    keys = ("import_path", "args", "runtime_env")
    return all((deployed.get(k) or {}) == (asked.get(k) or {}) for k in keys)


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
