"""Mode `faults`: parts of a cluster are killed, frozen and poisoned under steady load."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from deployments.bench.client import RIGHT

from .cluster import Cluster, cluster, kill, note, under_load
from .session import Part, Session
from .steady import HANGS, KILLS, NO_MEMORY, NOT_A_NUMBER, RAISES, ask, text_of
from .updates import try_stops, try_updates

FROM_THE_PROXY = frozenset({"502 not_ready", "503 not_ready"})
"""What HAProxy says of a replica that ended with requests on board, or that nobody is there."""
FROM_A_NEW_PROXY = frozenset(
    {"lost ConnectionRefusedError", "lost ConnectionError", "404 not of ours"}
)
"""What callers see until HAProxy is back: nothing, then its own 404 until it knows its routes."""
PROMISES: dict[frozenset[str], str] = {
    frozenset(): "every request is answered right",
    FROM_THE_PROXY: "every request is answered, but those that the dead process held",
    FROM_A_NEW_PROXY: "none hangs, and the next HAProxy is there by itself",
}
"""By what callers may see all the same."""


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
    with session.mode("faults", 20) as part:
        with cluster() as there:
            _killed(session, part, there)
            _poisoned(session, part, there)
            try_updates(session, part, there)
        try_stops(session, part)


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
        with session.trying(part, PROMISES[allowed], how):
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
        with session.trying(part, promise, how):
            poison = Poison(there, character)
            seen, back_s = under_load(there, poison)
            told = poison.outcome
            seen.outcomes[RIGHT if told == expected else f"{told} for the poisonous text"] += 1
            note(part, promise, how, seen, back_s, set())
