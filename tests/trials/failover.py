"""Mode `failover`: the head is killed under load and started again, its state in Redis or not."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from deployments.bench.client import RIGHT, Asked, Load
from deployments.launch import processes
from scripts.bench.process import wait_until

from .machines import Machines, machines, why_not
from .session import Part, Session
from .steady import Seen, steady_load

WORKERS = {"worker1": 3, "worker2": 3}
RATE_PER_S = 15.0  # at each worker's door
WHOLE = {"Tokenizer": 2, "Classifier": 2, "Postprocessor": 2}
GROWN = {**WHOLE, "Classifier": 3}
CHANGES = ["engine.name=none"]
ANSWERED_DEAD, LONG_DEAD = 150, 2_400
"""Requests answered without a head before it is started again. The latter takes longer than the
60 s for which Ray's processes wait for a head by themselves."""
BACK_S = 240.0
BUCKET_S = 5.0
ALL_ANSWERED = "without a head every request is answered; with the next one the service is whole"
WITHOUT = "without Redis the workers answer on, until a new head that does not know them is there"
NOTHING_KEPT_S = 90.0


@dataclass(frozen=True, slots=True)
class Case:
    """One end of a head. answered: requests without one, before the next is started."""

    how: str
    with_redis: bool = True
    answered: int = ANSWERED_DEAD
    with_a_replica: bool = False


CASES = (
    Case("kill -9 of the head, its state in Redis"),
    Case(
        "kill -9 of the head for a long time, then of a Classifier; the state in Redis",
        answered=LONG_DEAD,
        with_a_replica=True,
    ),
    Case("kill -9 of the head, nothing kept outside it", with_redis=False),
)


def options(replicas: dict[str, int]) -> dict[str, dict[str, Any]]:
    one = {"autoscaling_config": None, "ray_actor_options": {"num_cpus": 0.1}}
    return {name: {**one, "num_replicas": number} for name, number in replicas.items()}


@dataclass
class Doors:
    """Load at the HAProxy of each worker, from entry to exit. `log`: what happened, and when."""

    there: Machines
    log: list[tuple[float, str]] = field(default_factory=list)
    rows: list[Asked] = field(default_factory=list)
    _loads: list[Load] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    zero_s: float = 0.0

    def __enter__(self) -> Doors:
        for name in WORKERS:
            load = steady_load(self.there.door(name), RATE_PER_S)
            self._loads.append(self._stack.enter_context(load))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        self.rows = [one for load in self._loads for one in load.asked]

    def now_s(self) -> float:
        return self._loads[0].now_s()

    def answered(self) -> int:
        return sum(len(load.asked) for load in self._loads)

    def say(self, what: str) -> float:
        at_s = self.now_s()
        self.log.append((at_s, what))
        return at_s

    def until(self, condition: Callable[[], bool], what: str, limit_s: float = BACK_S) -> float:
        """When it was so; says it.

        Raises:
            TimeoutError: it was not within `limit_s`.
        """
        try:
            wait_until(condition, what, limit_s)
        except TimeoutError:
            self.say(f"not within {limit_s:.0f} s: {what}")
            raise
        return self.say(what)

    def answer_more(self, number: int, what: str) -> float:
        wanted = self.answered() + number
        return self.until(lambda: self.answered() >= wanted, f"{number} more answers: {what}")


def lose_head(there: Machines, doors: Doors, answered: int, with_a_replica: bool) -> None:
    """The head is killed, so many are answered without one, and the next one is started.

    with_a_replica: a Classifier dies too while nobody can replace it.
    """
    doors.answer_more(60, "before anything happens")
    killed = there.head.kill()
    doors.zero_s = doors.say(f"kill -9 of the head: {killed} processes")
    doors.answer_more(answered, "no head")
    if with_a_replica:
        os.kill(classifier_pid(there), signal.SIGKILL)
        doors.say("kill -9 of one of two Classifiers: nobody is there to replace it")
        doors.answer_more(ANSWERED_DEAD, "no head, one Classifier")
    there.start_head()
    doors.say("`ray start --head` again")


def classifier_pid(there: Machines) -> int:
    """A replica's process, as this machine numbers it."""
    pids = [pid for name in WORKERS for pid in there.by_name[name].pids()]
    found = processes.replicas(psutil.Process(pid) for pid in pids)
    return next(process.pid for process, name in found.items() if name == "Classifier")


def recovers(there: Machines, doors: Doors) -> None:
    """Waits until all is as before and the next head has shown that it can do its work."""
    doors.until(lambda: there.nodes() > 0, "Ray's dashboard answers")
    doors.until(lambda: there.nodes() == 1 + len(WORKERS), "both workers are with the new head")
    doors.until(lambda: there.status() is not None, "Serve's controller tells its state")
    doors.until(lambda: there.is_whole(WHOLE), "the application is RUNNING with all its replicas")
    there.deploy(CHANGES, options(GROWN))
    doors.until(lambda: there.is_whole(GROWN), "deployed with a third Classifier, which runs")
    doors.answer_more(90, "after it")


@contextmanager
def serving(with_redis: bool) -> Iterator[Machines]:
    """Two workers with the service on both, whole."""
    with machines(WORKERS, with_redis) as there:
        there.deploy(CHANGES, options(WHOLE))
        wait_until(lambda: there.is_whole(WHOLE), "the application")
        wait_until(lambda: all(map(there.answers, WORKERS)), "both doors")
        yield there


def try_failover(session: Session) -> None:
    """With Redis: nothing is lost, and the next head goes on. Without: what is lost is said."""
    with session.mode("failover", len(CASES)) as part:
        if reason := why_not():
            part.add(ALL_ANSWERED, "not tried", 0, reason, kept=False)
            return
        for case in CASES:
            with session.trying(part, ALL_ANSWERED, case.how), serving(case.with_redis) as there:
                _note(part, case, lost(there, case), there)


def lost(there: Machines, case: Case) -> tuple[Doors, bool]:
    """What was seen, and whether the next head took over."""
    with Doors(there) as doors:
        lose_head(there, doors, case.answered, case.with_a_replica)
        if not case.with_redis:
            doors.until(lambda: there.nodes() > 0, "Ray's dashboard answers")
            with suppress(TimeoutError):
                doors.until(
                    lambda: not any(map(there.answers, WORKERS)),
                    "no door answers: the workers ended, as the new head does not know them",
                    NOTHING_KEPT_S,
                )
            return doors, False
        try:
            recovers(there, doors)
        except TimeoutError:
            return doors, False
    return doors, True


def _note(part: Part, case: Case, found: tuple[Doors, bool], there: Machines) -> None:
    (doors, whole), how = found, case.how
    seen = Seen(doors.rows)
    log = [(round(at_s - doors.zero_s, 1), what) for at_s, what in doors.log]
    part.figures[how] = {
        "log": log,
        "answers": answers(doors),
        "outcomes": dict(seen.outcomes),
        "redis_keys": there.redis.keys() if there.redis else None,
        "slowest_s": round(seen.slowest_s, 2),
    }
    if case.with_redis:
        whole_s = next((at for at, what in log if what.startswith("the application")), None)
        told = "not whole again" if whole_s is None else f"whole {whole_s:.0f} s after the kill"
        part.add(ALL_ANSWERED, how, seen.asked, f"{seen}; {told}", whole and not seen.not_right)
    else:
        # No promise: it shows what Redis is for.
        part.add(WITHOUT, how, seen.asked, str(seen), kept=bool(seen.outcomes[RIGHT]))


def answers(doors: Doors) -> list[dict[str, Any]]:
    """Of every few seconds from the kill on: what became of the requests that were sent then."""
    by_time: dict[int, Counter[str]] = {}
    for one in doors.rows:
        bucket = math.floor((one.sent_s - doors.zero_s) / BUCKET_S)
        by_time.setdefault(bucket, Counter())[one.outcome] += 1
    return [
        {"from_s": bucket * BUCKET_S, "outcomes": dict(found)}
        for bucket, found in sorted(by_time.items())
    ]
