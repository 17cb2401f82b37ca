"""Mode `faults`, what is done on purpose: updates, bad ones too, fewer replicas, and the end."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployments.bench.client import RIGHT
from scripts.bench.service import read_config, running_service

from .cluster import CHANGES, REPLICAS, Cluster, note, under_load, wait_until
from .models import Unfit, unfit_models
from .session import Part, Session
from .steady import SLOW, Seen, ask, steady_load, text_of

SERVES_ON = "the old model serves on, and the status says why"
NO_FAILURE = "it fails no request"
ANSWERED = "what was accepted is answered, later ones are refused"
FEWER = {name: {"num_replicas": 1} for name in REPLICAS}
# Nobody asks much here, so both go down to one replica within seconds.
BY_LOAD = {
    "num_replicas": None,
    "autoscaling_config": {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 100,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 2.0,
        "downscale_delay_s": 3.0,
    },
}
# Who connects as the door closes is reset, whether he has spoken yet or not.
REFUSED = {"lost ConnectionRefusedError", "lost ConnectionError", "503 not_ready"}
SLOW_REQUESTS = 3  # more, and what comes after them is refused for the wait, 429


def new_replicas(there: Cluster) -> set[int]:
    """An update that needs new replicas of all three. The old ones, which must go."""
    before = {pid for name in REPLICAS for pid in there.pids(name)}
    there.update("limits.max_batch_texts=999")
    return before


def update_to(there: Cluster, model: Unfit) -> tuple[Seen, bool]:
    """What callers saw of an update to this model, and whether the status said that."""
    said: list[bool] = []

    def update() -> set[int]:
        engine = ["engine.name=torch", "engine.device=cpu", f"engine.dtype={model.dtype}"]
        there.update(f"model.id={model.place}", *engine, wait=False)
        said.append(wait_until(lambda: model.says in there.state()["message"], 60.0) is not None)
        return set()

    seen, _ = under_load(there, update)
    there.update()
    return seen, said[0]


def fewer(there: Cluster, options: dict[str, dict[str, Any]]) -> Callable[[], set[int]]:
    """Goes down to one replica of these deployments, and waits until the others are gone."""

    def go_down() -> set[int]:
        before = {name: set(there.pids(name)) for name in options}
        there.update(wait=False, **options)

        def down() -> bool:
            state = there.state()
            return all(len(state["replicas"].get(name, [])) == 1 for name in options)

        if wait_until(down, 60.0) is None:
            raise TimeoutError("the replicas did not become fewer")
        time.sleep(3.0)  # what the last one held is answered
        left = {pid for name in options for pid in there.pids(name)}
        there.update()
        return {pid for pids in before.values() for pid in pids} - left

    return go_down


def try_updates(session: Session, part: Part, there: Cluster) -> None:
    with session.trying(part, NO_FAILURE, "args changed: all replicas new"):
        seen, back_s = under_load(there, lambda: new_replicas(there))
        note(part, NO_FAILURE, "args changed: all replicas new", seen, back_s, set())
    with tempfile.TemporaryDirectory() as folder:
        for kind, model in unfit_models(Path(folder)).items():
            how = f"an update to a model {kind}"
            with session.trying(part, SERVES_ON, how):
                seen, said = update_to(there, model)
                note(part, SERVES_ON, how, seen, 0.0 if said else None, set())
    by_load = dict.fromkeys(("Tokenizer", "Classifier"), BY_LOAD)
    for how, options in (
        ("from 2 replicas of each to 1", FEWER),
        ("from 2 replicas to 1 by autoscaling", by_load),
    ):
        with session.trying(part, NO_FAILURE, how):
            seen, back_s = under_load(there, fewer(there, options))
            note(part, NO_FAILURE, how, seen, back_s, set())


def stopped(stop: signal.Signals) -> tuple[Counter[str], Counter[str], float]:
    """What became of requests sent before and after that signal to the launcher; when it ended.

    Some of the first ones take 3 s each, so that they are under way when it comes.
    """
    config = read_config()
    config["applications"][0]["import_path"] = "tests.trials.faulty:build"
    with running_service(CHANGES, config) as service:
        url = service.endpoint.url
        slow: list[str] = []
        texts = [f"{text_of(number)}{SLOW}" for number in range(SLOW_REQUESTS)]
        asking = threading.Thread(target=lambda: slow.extend(ask(url, *texts)))
        with steady_load(url) as load:
            time.sleep(2.0)
            asking.start()
            time.sleep(0.5)
            stopped_s = load.now_s()
            service.process.send_signal(stop)
            asking.join()
            service.process.wait(timeout=60)
            ended_s = load.now_s()
    before = Counter(slow)
    before.update(one.outcome for one in load.asked if one.sent_s < stopped_s)
    after = Counter(one.outcome for one in load.asked if one.sent_s >= stopped_s)
    return before, after, ended_s - stopped_s


def try_stops(session: Session, part: Part) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):
        how = f"{stop.name} to `rayclassify serve` under load"
        with session.trying(part, ANSWERED, how):
            try:
                before, after, took_s = stopped(stop)
            except subprocess.TimeoutExpired:
                raise TimeoutError("it did not end within 60 s") from None
            kept = set(before) == {RIGHT} and set(after) <= {RIGHT, *REFUSED}
            told = ", ".join(f"{n} {what}" for what, n in sorted(after.items()))
            lost = ", ".join(f"{n} {what}" for what, n in sorted(before.items()) if what != RIGHT)
            result = (
                f"before: {before[RIGHT]} of {before.total()} right{lost and ', ' + lost}; "
                f"after: {told or 'none'}; "
                f"ended after {took_s:.1f} s"
            )
            part.add(ANSWERED, how, before.total() + after.total(), result, kept)
            part.figures[how] = {"before": dict(before), "after": dict(after), "took_s": took_s}
