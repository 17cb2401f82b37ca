"""Mode `network`: a worker behind a slow line that loses packets, and one that is cut off."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from deployments.bench.client import RIGHT
from scripts.bench.process import wait_until

from .machines import Machines, machines, why_not
from .session import Part, Session
from .steady import Seen, steady_load

WORKERS = {"near": 3, "far": 3}
CHANGES = ["engine.name=none"]
RATE_PER_S = 20.0
MEASURED_S, QUICK_S = 20.0, 5.0
CUT_S = 10.0
DELAY_MS, LOSS = 5.0, 0.01
LIMIT_S = 240.0
REQUEST_TIMEOUT_S = 30.0
ALL_RIGHT = "a slow line that loses packets fails no request"
NO_HANG = "a cut line hangs nobody, and what comes back is whole again"
UPDATES = "an update of all replicas over that line fails no request"
EVERYWHERE = "replicas of all nodes share the work, wherever it comes in"
STAGES = ("parse", "model", "postprocess")
LOCALITY_REQUESTS = 400
SLOW = {"delay_ms": DELAY_MS, "loss": LOSS}
CLEAR = {"delay_ms": 0.0, "loss": 0.0}


@dataclass(frozen=True, slots=True)
class Case:
    """lines: the pairs of machines between which the line is slow; door: where requests come in."""

    name: str
    lines: tuple[tuple[str, str], ...]
    door: str


HEAD, BOTH = (("head", "far"),), (("head", "far"), ("near", "far"))
CASES = (
    Case("no delay, no loss", (), "near"),
    Case(f"{DELAY_MS:g} ms and {LOSS:.0%} loss between head and far", HEAD, "near"),
    Case(f"{DELAY_MS:g} ms and {LOSS:.0%} loss between far and all others", BOTH, "near"),
    Case("the same, requests come in at far", BOTH, "far"),
)


def on(node: str, number: int = 1) -> dict[str, Any]:
    """Options of a deployment that runs on that machine alone."""
    resources = {"num_cpus": 0.1, "resources": {node: 1}}
    return {"autoscaling_config": None, "num_replicas": number, "ray_actor_options": resources}


APART = {"Tokenizer": on("near"), "Classifier": on("far"), "Postprocessor": on("near")}
"""Each request crosses the line to the Classifier and back."""
ANYWHERE = {
    name: {
        "autoscaling_config": None,
        "num_replicas": 2,
        "ray_actor_options": {"num_cpus": 0.1},
        "max_replicas_per_node": 1,
    }
    for name in APART
}

# Where each node may hold one, the new ones of an update find no room beside the old.
ROOM = {name: {**one, "max_replicas_per_node": 2} for name, one in ANYWHERE.items()}


def set_lines(there: Machines, lines: tuple[tuple[str, str], ...], **what: float) -> None:
    for one, other in lines:
        there.wire.ask(do="link", one=one, other=other, **what)


def serve(there: Machines, options: dict[str, dict[str, Any]], *changes: str) -> float:
    """Deploys, and waits until it is whole; seconds that it took."""
    began = time.monotonic()
    there.deploy([*CHANGES, *changes], options)
    wanted = {name: one["num_replicas"] for name, one in options.items()}
    wait_until(lambda: there.is_whole(wanted), "the application", LIMIT_S)
    return time.monotonic() - began


def measure(there: Machines, case: Case, seconds: float) -> dict[str, Any]:
    """What callers saw on these lines."""
    set_lines(there, BOTH, **CLEAR)
    set_lines(there, case.lines, **SLOW)
    before = there.wire.ask(do="seen")
    with steady_load(there.door(case.door), RATE_PER_S) as load:
        wait_until(lambda: load.now_s() > seconds, "the time", seconds + 30)
    after = there.wire.ask(do="seen")
    seen = Seen(load.asked)
    times = [one.took_s * 1e3 for one in load.asked if one.outcome == RIGHT] or [float("nan")]
    p50_ms, p99_ms = np.percentile(times, (50, 99)).round(1).tolist()
    return {
        "name": case.name,
        "door": case.door,
        "requests": seen.asked,
        "outcomes": dict(seen.outcomes),
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "packets": after["packets"] - before["packets"],
        "lost": after["lost"] - before["lost"],
    }


def during(there: Machines, door: str, does: Callable[[], None], after_s: float = 3.0) -> Seen:
    """What callers saw at a door while something was done."""
    with steady_load(there.door(door), RATE_PER_S) as load:
        wait_until(lambda: len(load.asked) >= RATE_PER_S, "the first answers", LIMIT_S)
        does()
        until_s = load.now_s() + after_s
        wait_until(lambda: load.now_s() > until_s, "the last answers", LIMIT_S)
    return Seen(load.asked)


def try_network(session: Session) -> None:
    with session.mode("network", len(CASES) + 4) as part:
        if reason := why_not():
            part.add(ALL_RIGHT, "not tried", 0, reason, kept=False)
            return
        session.step("network: starting")
        with machines(WORKERS) as there:
            serve(there, APART)
            wait_until(lambda: there.answers("near"), "the door", LIMIT_S)
            _slow_lines(session, part, there)
            serve(there, ANYWHERE)
            wait_until(lambda: all(map(there.answers, WORKERS)), "both doors", LIMIT_S)
            _locality(session, part, there)
            _cut(session, part, there)
            _update(session, part, there)


def _slow_lines(session: Session, part: Part, there: Machines) -> None:
    part.figures["lines"] = rows = []
    for case in CASES:
        how = f"{case.name}; in at {case.door}, Tokenizer on near, Classifier on far"
        with session.trying(part, ALL_RIGHT, how):
            if case.door == "far":
                # HAProxy runs where a replica does: far has the Classifier, and asks near.
                wait_until(lambda: there.answers("far"), "far's door", LIMIT_S)
            row = measure(there, case, QUICK_S if session.quick else MEASURED_S)
            rows.append(row)
            wrong = row["requests"] - row["outcomes"].get(RIGHT, 0)
            part.add(
                ALL_RIGHT,
                how,
                row["requests"],
                f"{wrong} not right; p50 {row['p50_ms']:g} ms, p99 {row['p99_ms']:g} ms; "
                f"{row['lost']} of {row['packets']:,} packets lost",
                not wrong,
            )
    set_lines(there, BOTH, **CLEAR)


def _locality(session: Session, part: Part, there: Machines) -> None:
    """All requests come in at one node, and both have a replica of each stage."""
    how = "in at near, a replica of each stage on near and on far"
    with session.trying(part, EVERYWHERE, how):
        before = there.counted()
        with steady_load(there.door("near"), RATE_PER_S) as load:
            wait_until(lambda: len(load.asked) >= LOCALITY_REQUESTS, "the answers", LIMIT_S)
        seen = Seen(load.asked)
        asked, right = seen.asked, seen.outcomes[RIGHT]

        def counted() -> dict[str, dict[str, float]]:
            """Ray's metrics come every 10 s, of each replica at another time."""
            now = there.counted()
            gained = {stage: there.texts(stage, now, before) for stage in STAGES}
            whole = all(sum(by_node.values()) >= right for by_node in gained.values())
            return gained if whole else {}

        gained = wait_until(counted, "Ray's metrics", 60.0)
        part.figures["locality"] = gained
        shares = {
            stage: by_node["near"] / sum(by_node.values()) for stage, by_node in gained.items()
        }
        told = ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items())
        kept = not seen.not_right and all(0 < share < 1 for share in shares.values())
        part.add(EVERYWHERE, how, asked, f"{seen}; on near itself: {told}", kept)


def _update(session: Session, part: Part, there: Machines) -> None:
    how = f"{DELAY_MS:g} ms and {LOSS:.0%} loss between far and all others, 2 replicas of each"
    with session.trying(part, UPDATES, how):
        set_lines(there, BOTH, **SLOW)
        took: list[float] = []
        seen = during(
            there, "near", lambda: took.append(serve(there, ROOM, "limits.max_queue_s=9"))
        )
        set_lines(there, BOTH, **CLEAR)
        told = f"{seen}; the update took {took[0]:.0f} s"
        part.add(UPDATES, how, seen.asked, told, not seen.not_right)
        part.figures["update"] = {"took_s": took[0], "outcomes": dict(seen.outcomes)}


def _cut(session: Session, part: Part, there: Machines) -> None:
    """No packet from or to far for a while; its replicas live on."""
    how = f"far cut off from all others for {CUT_S:g} s, 2 replicas of each, in at near"
    with session.trying(part, NO_HANG, how):
        back: list[float] = []

        def cut() -> None:
            set_lines(there, BOTH, loss=1.0)
            end = time.monotonic() + CUT_S
            wait_until(lambda: time.monotonic() > end, "the cut's end", CUT_S + 30)
            set_lines(there, BOTH, **CLEAR)
            began = time.monotonic()
            wanted = dict.fromkeys(ANYWHERE, 2)
            wait_until(lambda: there.is_whole(wanted), "the application", LIMIT_S)
            back.append(time.monotonic() - began)

        seen = during(there, "near", cut)
        kept = seen.slowest_s < REQUEST_TIMEOUT_S + 5 and bool(back)
        told = f"{seen}; whole {back[0]:.0f} s after the cut" if back else f"{seen}; not whole"
        part.add(NO_HANG, how, seen.asked, told, kept)
        part.figures["cut"] = {"outcomes": dict(seen.outcomes), "back_s": back and back[0],
                               "slowest_s": round(seen.slowest_s, 2)}  # fmt: skip
