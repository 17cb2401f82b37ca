"""A service on several nodes under steady load, and what callers see of what is done to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scripts.bench import process
from scripts.bench.child import Child, ChildFailed, child

from .session import Part
from .steady import Seen, steady_load

RECOVERY_LIMIT_S = 120.0
MAX_PASS_S = 5.0  # the shipped 60 s would be waited for
REQUEST_TIMEOUT_S = 30
REPLICAS = ("Tokenizer", "Classifier", "Postprocessor")
CHANGES = [f"Classifier.max_pass_s={MAX_PASS_S}", "engine.name=none"]


@dataclass
class Cluster:
    """A service on several nodes, whose parts can be named by process."""

    process: Child
    every: dict[str, Any]
    url: str = ""

    def state(self) -> dict[str, Any]:
        return self.process.ask(do="state")

    def pids(self, part: str) -> list[int]:
        """The processes of a deployment's replicas, of the `controller`, or of `haproxy`."""
        state = self.state()
        found: list[int] = state["replicas"].get(part) or state.get(part) or []
        return found

    def is_whole(self, without: Set[int] = frozenset()) -> bool:
        """Two replicas of each, and none of these processes among them."""
        try:
            state = self.state()
        except ChildFailed:
            return False  # the controller starts again
        alive = {pid for pids in state["replicas"].values() for pid in pids}
        whole = all(len(state["replicas"].get(name, [])) == 2 for name in REPLICAS)
        return whole and bool(state["haproxy"]) and not without & alive

    def update(self, *changes: str, wait: bool = True, **options: dict[str, Any]) -> None:
        by_name = {
            name: {"num_replicas": 2, **self.every, **options.get(name, {})} for name in REPLICAS
        }
        deployed = self.process.ask(
            do="deploy",
            import_path="tests.trials.faulty:build",
            changes=[*CHANGES, *changes],
            options=by_name,
            wait=wait,
        )
        self.url = deployed["url"]


@contextmanager
def cluster(*changes: str, **every: Any) -> Iterator[Cluster]:
    """Two nodes with two replicas of each deployment, and a head; ended on exit.

    changes: what is deployed first, as of `update`. every: options of all deployments, always.
    """
    with child("scripts.bench.cluster") as process:
        process.ask(do="grow", nodes=3)
        there = Cluster(process, every)
        there.update(*changes)
        yield there


def wait_until(condition: Callable[[], bool], limit_s: float = RECOVERY_LIMIT_S) -> float | None:
    """Seconds until it was true, or None where it was not within `limit_s`."""
    started = time.monotonic()
    try:
        process.wait_until(condition, "it", limit_s)
    except TimeoutError:
        return None
    return time.monotonic() - started


def under_load(
    there: Cluster, fault: Callable[[], set[int]], after_s: float = 2.0
) -> tuple[Seen, float | None]:
    """What callers saw of `fault`, and how long until capacity was back.

    fault: does harm; returns the processes that must be gone before all is well.

    Raises:
        TimeoutError: the service was not whole before.
    """
    process.wait_until(there.is_whole, "two replicas of each before it", RECOVERY_LIMIT_S)
    with steady_load(there.url) as load:
        time.sleep(2.0)
        gone = fault()
        back_s = wait_until(lambda: there.is_whole(without=gone))
        time.sleep(after_s)
    return Seen(load.asked), back_s


def kill(there: Cluster, part: str, how: int = signal.SIGKILL) -> set[int]:
    victim = there.pids(part)[0]
    os.kill(victim, how)
    return {victim}


def note(
    part: Part, promise: str, how: str, seen: Seen, back_s: float | None, allowed: Set[str]
) -> None:
    back = "capacity did not come back" if back_s is None else f"capacity back after {back_s:.0f} s"
    kept = set(seen.not_right) <= allowed and back_s is not None
    kept &= seen.slowest_s < REQUEST_TIMEOUT_S + 5
    part.add(promise, how, seen.asked, f"{seen}; {back}", kept)
    part.figures[how] = {
        "outcomes": dict(seen.outcomes),
        "longest_gap_s": round(seen.longest_gap_s, 2),
        "slowest_s": round(seen.slowest_s, 2),
        "capacity_back_s": back_s and round(back_s, 1),
    }
