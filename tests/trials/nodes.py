"""Modes `nodes`, `losses`, `scaling`: where replicas run on seven nodes, and what callers see.

A head, two CPU nodes and four GPU nodes with two GPUs each.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

from deployments.bench.client import RIGHT, Load, Question
from scripts.bench.child import Child, child
from scripts.bench.process import wait_until
from scripts.bench.service import is_ready
from tests.conftest import DEMO_MODEL

from . import pretended_gpus
from .faults import FROM_THE_PROXY
from .pretended_gpus import BODY, PATIENT, PER_S, Watched
from .session import Part, Session
from .steady import Seen, steady_load

CPU_NODES, GPU_NODES, GPUS = 2, 4, 2
MOST = GPU_NODES * GPUS
LIMIT_S = 300.0  # a replica starts slowly where many do on a few cores
PLACED = "Classifiers run on GPU nodes alone, all else on none of them"
NO_MORE = "no GPU is given out twice"
SCALES = (
    f"1 to {MOST} Classifiers over all GPU nodes and back; who can't be answered gets 429 at once"
)
LOST = "a node that is lost takes no more with it than its proxy's requests"
UPDATED = "an update of the model on all nodes fails no request"
STOPPED_FIRST = "without a surge no request fails, but for those told to come again, 503"
REPLICAS = {"Tokenizer": 2, "Classifier": 4, "Postprocessor": 2}
DELAYS = {**pretended_gpus.DELAYS, "downscale_delay_s": 20.0}
NEEDS, IDLE = 7.0, 0.3
"""Classifiers' worth of work: 7 at 70 % busy needs 10, and there are 8."""


def options(
    replicas: dict[str, int], num_gpus: float = 1.0, surge: int = 25
) -> dict[str, dict[str, Any]]:
    """CPU stages stay in their pool by its resource; a Classifier asks for a GPU alone."""
    off_gpus = {"num_cpus": 0.5, "resources": {"cpu": 0.01}}
    on_gpus = {"num_cpus": 0.1, "num_gpus": num_gpus}
    return {
        name: {
            "autoscaling_config": None,
            "num_replicas": number,
            "ray_actor_options": on_gpus if name == "Classifier" else off_gpus,
            "max_surge_percent": surge if name == "Classifier" else 100,
        }
        for name, number in replicas.items()
    }


class Nodes:
    """The service on the fleet."""

    def __init__(self, process: Child) -> None:
        self.process, self.url = process, ""

    def deploy(self, options: dict[str, dict[str, Any]], *changes: str, wait: bool = True) -> None:
        self.url = self.process.ask(
            do="deploy",
            import_path="tests.trials.faulty:build",
            changes=["engine.name=none", *changes],
            options=options,
            wait=False,
        )["url"]
        if wait:
            wanted = {name: one["num_replicas"] for name, one in options.items()}
            wait_until(lambda: self.has(wanted) and is_ready(self.url), "all replicas", LIMIT_S)

    def where(self) -> dict[str, Any]:
        return self.process.ask(do="where")

    def has(self, replicas: dict[str, int]) -> bool:
        """These run, and no others are there."""
        seen = self.process.ask(do="scale")
        return {name: (n, n) for name, n in replicas.items()} == {
            name: (seen.get(name, {}).get("running"), seen.get(name, {}).get("there"))
            for name in replicas
        }

    def lives(self, replicas: dict[str, int], without: set[int]) -> bool:
        """So many processes of each live, and none of those."""
        there = self.process.ask(do="state")["replicas"]
        enough = all(len(there.get(name, [])) == n for name, n in replicas.items())
        return enough and not without & {pid for pids in there.values() for pid in pids}

    def under_load(self, does: Callable[[], Any], replicas: dict[str, int]) -> tuple[Seen, float]:
        """What callers saw of it, and seconds until these replicas ran again."""
        with steady_load(self.url) as load:
            wait_until(lambda: len(load.asked) > 30, "the first answers", LIMIT_S)
            began = time.monotonic()
            does()
            wait_until(lambda: self.has(replicas), "all replicas", LIMIT_S)
            took_s = time.monotonic() - began
            more = len(load.asked) + 60
            wait_until(lambda: len(load.asked) > more, "the last answers", LIMIT_S)
        return Seen(load.asked), took_s


@contextmanager
def nodes() -> Iterator[Nodes]:
    with child("tests.trials.fleet") as process:
        process.ask(do="add", pool="cpu", nodes=CPU_NODES, num_cpus=4)
        process.ask(do="add", pool="gpu", nodes=GPU_NODES, num_cpus=4, num_gpus=GPUS)
        yield Nodes(process)


def try_nodes(session: Session) -> None:
    with session.mode("nodes", 5) as part, nodes() as there:
        _placement(session, part, there)
        _updates(session, part, there)


def try_losses(session: Session) -> None:
    with session.mode("losses", 2) as part, nodes() as there:
        _losses(session, part, there)


def try_scaling(session: Session) -> None:
    with session.mode("scaling", 1) as part, nodes() as there:
        _scaling(session, part, there)


def _placement(session: Session, part: Part, there: Nodes) -> None:
    part.figures["placement"] = rows = []
    how = f"{MOST} Classifiers with num_gpus 1 on {GPU_NODES} nodes of {GPUS}"
    with session.trying(part, PLACED, how):
        rows.append(_placed(part, there, how, MOST, 1.0))
    how = f"a {MOST + 1}th Classifier where {MOST} GPUs are taken"
    with session.trying(part, NO_MORE, how):
        more = {**REPLICAS, "Classifier": MOST + 1}
        there.deploy(options(more, surge=0), wait=False)
        wait_until(lambda: there.where()["unplaced"]["Classifier"] == 1, "it to wait", LIMIT_S)
        running = sum(there.where()["pools"]["Classifier"].values())
        part.add(NO_MORE, how, MOST + 1, f"{running} run, 1 waits for a place", running == MOST)
    how = f"4 Classifiers with num_gpus 0.5 on {GPU_NODES} nodes of {GPUS}"
    with session.trying(part, PLACED, how):
        rows.append(_placed(part, there, how, 4, 0.5))


def _placed(
    part: Part, there: Nodes, how: str, classifiers: int, num_gpus: float
) -> dict[str, Any]:
    there.deploy(options({**REPLICAS, "Classifier": classifiers}, num_gpus, surge=0))
    seen = there.where()
    pools = seen["pools"]
    kept = pools == {
        "Tokenizer": {"cpu": 2},
        "Classifier": {"gpu": classifiers},
        "Postprocessor": {"cpu": 2},
    }
    kept &= max(seen["nodes"]["Classifier"]) * num_gpus <= GPUS
    told = f"{_told(pools)}; Classifiers by node: {seen['nodes']['Classifier']}"
    part.add(PLACED, how, classifiers + 4, told, kept)
    return {"how": how, **seen}


def _updates(session: Session, part: Part, there: Nodes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "next")
        shutil.copytree(DEMO_MODEL, model)
        for how, replicas, surge in (
            ("4 Classifiers on 8 GPUs, max_surge_percent 25", 4, 25),
            ("2 Classifiers, max_surge_percent 0: old ones stop first", 2, 0),
        ):
            promise = UPDATED if surge else STOPPED_FIRST
            with session.trying(part, promise, how):
                wanted = {**REPLICAS, "Classifier": replicas}
                there.deploy(options(wanted, surge=surge))
                before = there.process.ask(do="state")["replicas"]["Classifier"]

                def update(
                    wanted: dict[str, int] = wanted, surge: int = surge, before: list[int] = before
                ) -> None:
                    there.deploy(options(wanted, surge=surge), f"model.id={model}", wait=False)
                    wait_until(lambda: _all_new(there, before, wanted), "new ones", LIMIT_S)

                seen, took_s = there.under_load(update, wanted)
                told = f"{seen}; took {took_s:.0f} s"
                allowed: set[str] = set() if surge else {"503 not_ready"}
                part.add(promise, how, seen.asked, told, set(seen.not_right) <= allowed)


def _all_new(there: Nodes, before: list[int], wanted: dict[str, int]) -> bool:
    now = there.process.ask(do="state")["replicas"].get("Classifier", [])
    return len(now) == wanted["Classifier"] and not set(now) & set(before)


def _losses(session: Session, part: Part, there: Nodes) -> None:
    for pool, deployment in (("gpu", "Classifier"), ("cpu", "Tokenizer")):
        how = f"kill -9 of a {pool} node with a {deployment}, {1 + CPU_NODES + GPU_NODES} nodes"
        with session.trying(part, LOST, how):
            there.deploy(options(REPLICAS))

            def lose(pool: str = pool, deployment: str = deployment) -> None:
                gone = there.process.ask(do="lose", pool=pool, deployment=deployment)["gone"]
                # Serve believes in them for a while: whole is what has other processes.
                wait_until(lambda: there.lives(REPLICAS, set(gone)), "new replicas", LIMIT_S)

            seen, took_s = there.under_load(lose, REPLICAS)
            allowed = FROM_THE_PROXY if pool == "cpu" else frozenset()
            told = f"{seen}; whole after {took_s:.0f} s"
            part.add(LOST, how, seen.asked, told, set(seen.not_right) <= allowed)
            there.process.ask(
                do="add", pool=pool, nodes=1, num_cpus=4, num_gpus=GPUS if pool == "gpu" else 0
            )


def _scaling(session: Session, part: Part, there: Nodes) -> None:
    with session.trying(part, SCALES, "the project's policy"):
        url = pretended_gpus.deploy(
            there.process, "scripts.bench.standin:build", list(PATIENT),
            pretended_gpus.OUR_WAY, DELAYS,
        )  # fmt: skip
        seconds = {"idle": 10.0, "busy": 60.0 if session.quick else 100.0}
        due = [n / (IDLE * PER_S) for n in range(int(seconds["idle"] * IDLE * PER_S))]
        due += [
            seconds["idle"] + n / (NEEDS * PER_S)
            for n in range(int(seconds["busy"] * NEEDS * PER_S))
        ]
        with Watched(there.process) as watched:
            load = Load(url, repeat(Question(BODY)), due)
            with load:
                wait_until(lambda: load.n_sent == len(due), "the load", sum(seconds.values()) + 60)
                at_most = there.where()
            ended_s = watched.series[-1]["at_s"]
            wait_until(
                lambda: watched.series[-1]["Classifier"]["there"] == 1, "one Classifier", LIMIT_S
            )
        classifiers = [(one["at_s"], one["Classifier"]) for one in watched.series]
        most = max(one["running"] for _, one in classifiers)
        full_s = next((at for at, one in classifiers if one["running"] == MOST), None)
        back_s = classifiers[-1][0] - ended_s
        # One Classifier can't hold the work of seven until the others have started.
        later = load.outcomes["429 overloaded"]
        wrong = len(load.asked) - load.outcomes[RIGHT] - later
        grown = "never" if full_s is None else f"{full_s - seconds['idle']:.0f} s after the load"
        part.add(
            SCALES,
            f"the project's policy, work for {IDLE} then {NEEDS:g} Classifiers for "
            f"{seconds['busy']:.0f} s, then none; "
            f"downscale_delay_s {DELAYS['downscale_delay_s']:g}",
            len(load.asked),
            f"{wrong} not right, {later} told to come later; {MOST} run {grown}; at most {most}, "
            f"by node {at_most['nodes']['Classifier']}; one again {back_s:.0f} s after its end",
            not wrong and most == MOST,
        )
        part.figures["scaling"] = {
            "series": [{"at_s": at, **one} for at, one in classifiers],
            "outcomes": dict(load.outcomes),
            "full_s": full_s,
            "back_s": round(back_s, 1),
        }


def _told(pools: dict[str, dict[str, int]]) -> str:
    return ", ".join(
        f"{n} {name} on {pool}" for name, by_pool in pools.items() for pool, n in by_pool.items()
    )
