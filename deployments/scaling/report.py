"""What the policy wrote down, for people: replicas now and wanted, and why there are so many."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

STALE_S = 30.0
"""A state that is older is of a controller that has gone."""


def read_state(text: str) -> dict[str, Any] | None:
    """What `FollowWork` wrote, or None where it is nothing of the kind."""
    try:
        state = json.loads(text)
    except ValueError:
        return None
    known = isinstance(state, dict) and {"at", "work", "decisions", "target"} <= state.keys()
    return state if known else None


def lines(state: dict[str, Any], now: float | None = None) -> Iterator[str]:
    """One line for now, and one for each decision, the latest first."""
    now = time.time() if now is None else now
    work = state["work"]
    if now - state["at"] > STALE_S:
        yield f"no news of its replicas for {now - state['at']:.0f} s"
        return
    told = _work(work) if work["reporting"] else "no replica has reported yet"
    yield (
        f"wanted {state['wanted']:.2g} of {state['least']} to {state['most']}: {told} "
        f"(aims: busy {state['target_busy']:g}, wait {state['max_wait_s']:g} s)"
    )
    for decision in reversed(state["decisions"]):
        yield (
            f"{_ago(now - decision['at'])} ago: {decision['before']} → {decision['after']}, "
            f"{_work(decision['work'])}"
        )


def _work(work: dict[str, Any]) -> str:
    reporting = max(work["reporting"], 1)
    parts = [f"busy {work['busy'] / reporting:.0%} of {work['reporting']}"]
    if work["tokens_per_s"]:
        parts.append(f"wait {work['wait_s'] / reporting:.2g} s")
        parts.append(f"{work['tokens_per_s']:,.0f} tokens/s")
    return ", ".join(parts)


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
