"""How an application stands, for eyes and for programmes."""

from __future__ import annotations

import time
from typing import Any

from deployments.deploying.kept import Kept
from deployments.deploying.pinning import shown_model
from deployments.deploying.rollout import to_go_back_to
from deployments.deploying.room import Node
from deployments.deploying.serve_state import (
    FAILED,
    RUNNING,
    AppState,
    same_config,
    what_it_waits_for,
)

# What a failed update means for the stages it did not reach, and for those it did.
_STAYED = "its update failed: runs the config before, and is neither replaced nor scaled"


def shown(app: AppState, kept: Kept, nodes: list[Node]) -> list[str]:
    """Lines: what is asked for, what serves, why something does not, and the way back."""
    lines = [f"{app.name}: {app.status}, deployed {_ago(app.since)} ago"]
    width = max((len(stage.name) for stage in app.stages), default=0)
    for stage in app.stages:
        remark = f"   {_STAYED}" if stage.failed and stage.running else ""
        if stage.failed and not stage.running:
            remark = "   failed to start"
        lines.append(f"  {stage.name:<{width}}  {stage.progress()}{remark}")
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


def to_json(app: AppState, kept: Kept, nodes: list[Node]) -> dict[str, Any]:
    """The same as plain values."""
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
