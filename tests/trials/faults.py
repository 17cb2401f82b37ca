"""Mode `faults`: parts of a cluster are killed, frozen and poisoned under steady load."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from scripts.bench.child import Child, ChildFailed, child

from .session import Finding, Part, Session
from .steady import (
    CLIENT_TIMEOUT_S,
    HANGS,
    KILLS,
    NO_MEMORY,
    NOT_A_NUMBER,
    RAISES,
    RIGHT,
    Seen,
    SteadyLoad,
    asked,
    text_of,
)

RECOVERY_LIMIT_S = 120.0
MAX_PASS_S = 5.0  # the shipped 60 s would be waited for
REQUEST_TIMEOUT_S = 30
REPLICAS = ("Tokenizer", "Classifier", "Postprocessor")
FROM_THE_PROXY = frozenset({"502 not_ready", "503 not_ready"})
"""What HAProxy says of a replica that ended with requests on board, or that nobody is there."""
FROM_A_NEW_PROXY = frozenset(
    {"lost ConnectError", "lost ReadError", "lost RemoteProtocolError", "404 no JSON"}
)
"""What callers see until HAProxy is back: nothing, then its own 404 until it knows its routes."""
PROMISES: dict[frozenset[str], str] = {
    frozenset(): "every request is answered right",
    FROM_THE_PROXY: "every request is answered, but those that the dead process held",
    FROM_A_NEW_PROXY: "none hangs, and the next HAProxy is there by itself",
}
"""By what callers may see all the same."""
CHANGES = [f"Classifier.max_pass_s={MAX_PASS_S}", "engine.name=none"]


@dataclass
class Cluster:
    """A service on several nodes, whose parts can be named by process."""

    process: Child
    url: str

    def state(self) -> dict[str, Any]:
        return self.process.ask(do="state")

    def pids(self, part: str) -> list[int]:
        """The processes of a deployment's replicas, of the `controller`, or of `haproxy`."""
        state = self.state()
        found: list[int] = state["replicas"].get(part) or state.get(part) or []
        return found

    def is_whole(self, without: set[int] = frozenset()) -> bool:
        """Two replicas of each, and none of these processes among them."""
        try:
            state = self.state()
        except ChildFailed:
            return False  # the controller starts again
        alive = {pid for pids in state["replicas"].values() for pid in pids}
        whole = all(len(state["replicas"].get(name, [])) == 2 for name in REPLICAS)
        return whole and bool(state["haproxy"]) and not without & alive

    def update(self, *changes: str, wait: bool = True, **options: dict[str, Any]) -> None:
        self.process.ask(do="deploy", changes=[*CHANGES, *changes], options=options, wait=wait)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Two nodes with two replicas of each deployment, and a head; ended on exit."""
    with child("tests.trials.nodes") as process:
        url = process.ask(do="deploy", changes=CHANGES, options={})["url"]
        yield Cluster(process, url)


def wait_until(condition: Callable[[], bool], limit_s: float = RECOVERY_LIMIT_S) -> float | None:
    """Seconds until it was true, or None where it was not within `limit_s`."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        if condition():
            return time.monotonic() - started
        time.sleep(0.25)
    return None


def under_load(
    there: Cluster, fault: Callable[[], set[int]], after_s: float = 2.0
) -> tuple[Seen, float | None]:
    """What callers saw of `fault`, and how long until capacity was back.

    fault: does harm; returns the processes that must be gone before all is well.
    """
    wait_until(there.is_whole)
    with SteadyLoad(there.url) as load:
        time.sleep(2.0)
        gone = fault()
        back_s = wait_until(lambda: there.is_whole(without=gone))
        time.sleep(after_s)
    return load.seen, back_s


def kill(there: Cluster, part: str, how: int = signal.SIGKILL) -> set[int]:
    victim = there.pids(part)[0]
    os.kill(victim, how)
    return {victim}


def ask(url: str, *texts: str) -> list[str]:
    """What became of these texts, asked at once."""

    async def all_at_once() -> list[str]:
        async with httpx.AsyncClient(timeout=CLIENT_TIMEOUT_S) as client:
            return list(await asyncio.gather(*[asked(client, url, text) for text in texts]))

    return asyncio.run(all_at_once())


@dataclass
class Poison:
    """Asks one text with `character` in it; `outcome` is what became of it."""

    there: Cluster
    character: str
    outcome: str = ""
    deaths: int = 0

    def __call__(self) -> set[int]:
        before: list[psutil.Process] = []
        for pid in self.there.pids("Classifier"):
            with suppress(psutil.NoSuchProcess):  # what the last fault left
                before.append(psutil.Process(pid))
        (self.outcome,) = ask(self.there.url, f"{text_of(0)}{self.character}")
        # One that hangs ends after its last words.
        gone, _ = psutil.wait_procs(before, timeout=2.0 if self.character == HANGS else 0.0)
        self.deaths = len(gone)
        return {process.pid for process in gone}


def try_faults(session: Session) -> None:
    from .updates import try_stops, try_updates

    with session.mode("faults", 20) as part:
        with cluster() as there:
            _killed(session, part, there)
            _poisoned(session, part, there)
            try_updates(session, part, there)
        try_stops(session, part)


@contextmanager
def step(session: Session, part: Part, promise: str, how: str) -> Iterator[None]:
    """One fault. What goes wrong with it is a promise not kept, and the next one is tried."""
    session.step(how)
    try:
        yield
    except Exception as exc:
        said = f"not tried to the end: {type(exc).__name__}: {exc}"[:300]
        part.findings.append(Finding(promise, how, 0, said, kept=False))


def note(
    part: Part, promise: str, how: str, seen: Seen, back_s: float | None, allowed: Set[str]
) -> None:
    back = "capacity did not come back" if back_s is None else f"capacity back after {back_s:.0f} s"
    kept = set(seen.not_right) <= allowed and back_s is not None
    kept &= seen.slowest_s < REQUEST_TIMEOUT_S + 5
    part.findings.append(Finding(promise, how, seen.asked, f"{seen}; {back}", kept))
    part.figures[how] = {
        "outcomes": dict(seen.outcomes),
        "longest_gap_s": round(seen.longest_gap_s, 2),
        "slowest_s": round(seen.slowest_s, 2),
        "capacity_back_s": back_s and round(back_s, 1),
    }


def _killed(session: Session, part: Part, there: Cluster) -> None:
    faults: dict[str, tuple[Callable[[], set[int]], frozenset[str]]] = {
        "kill -9 of a Classifier": (lambda: kill(there, "Classifier"), frozenset()),
        "kill -9 of a Postprocessor": (lambda: kill(there, "Postprocessor"), frozenset()),
        # What it held of connections is gone with it.
        "kill -9 of a Tokenizer": (lambda: kill(there, "Tokenizer"), FROM_THE_PROXY),
        "kill -9 of Serve's controller": (lambda: kill(there, "controller"), frozenset()),
        "kill -9 of HAProxy": (lambda: kill(there, "haproxy"), FROM_A_NEW_PROXY),
        "SIGSTOP of a Classifier": (lambda: kill(there, "Classifier", signal.SIGSTOP), frozenset()),
        "a worker node is lost": (
            lambda: set(there.process.ask(do="lose_node")["gone"]),
            FROM_THE_PROXY,
        ),
    }
    for how, (fault, allowed) in faults.items():
        with step(session, part, PROMISES[allowed], how):
            seen, back_s = under_load(there, fault, 2.0 if session.quick else 5.0)
            note(part, PROMISES[allowed], how, seen, back_s, allowed)


def _poisoned(session: Session, part: Part, there: Cluster) -> None:
    texts = {
        "a text on which the model raises": (RAISES, "500 prediction_failed"),
        "a text that becomes NaN": (NOT_A_NUMBER, "500 prediction_failed"),
        "a text on which memory ends": (NO_MEMORY, "500 prediction_failed"),
        "a text that kills its process": (KILLS, "500 prediction_failed"),
        "a text on which the model hangs": (HANGS, "500 prediction_failed"),
    }
    for how, (character, expected) in texts.items():
        promise = f"it gets {expected}, nobody else an error"
        with step(session, part, promise, how):
            poison = Poison(there, character)
            seen, back_s = under_load(there, poison)
            told = poison.outcome
            seen.outcomes[RIGHT if told == expected else f"{told} for the poisonous text"] += 1
            note(part, promise, how, seen, back_s, set())
