"""Mode `models`: updates from one model to another under load. No answer may come from two."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, Self

import requests

from deployments.bench.client import CLIENT_TIMEOUT_S, Answer, Asked, Load, Question, post
from scripts.bench.child import Child, child

from .cluster import REPLICAS, Cluster, cluster, kill, wait_until
from .handles import HandleLoad, environment
from .models import (
    BEFORE,
    TEXTS,
    Disagreeing,
    disagreeing_models,
    without_numbers,
    without_weights,
)
from .session import Part, Session

ONE_MODEL = "every answer is wholly of the old model or of the new one, and none fails"
OLD_SERVES = "every answer is of the old model, `/info` and the status say what failed and why"
ENGINE = ["engine.name=torch", "engine.device=cpu", "engine.dtype=float32"]
Options = dict[str, dict[str, Any]]
SINGLE: Options = {name: {"num_replicas": 1} for name in REPLICAS}
HTTP_EVERY_S = 0.03
HANDLE_EVERY_S = 0.2
MOST_SLOW_S = 35.0


@dataclass
class Answers:
    """By what gave them: `old`, `new`, `both` where they agree, `mixed`, or an error."""

    http: Counter[str] = field(default_factory=Counter)
    handle: Counter[str] = field(default_factory=Counter)
    mixed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    last_s: dict[str, float] = field(default_factory=dict)

    @property
    def all(self) -> Counter[str]:
        return self.http + self.handle

    def __str__(self) -> str:
        told = [
            f"{sum(c.values())} by {how}: "
            + ", ".join(f"{n} {what}" for what, n in sorted(c.items()))
            for how, c in (("HTTP", self.http), ("handle", self.handle))
        ]
        return f"{'; '.join(told)}; slowest {self.slowest_s:.1f} s"


class Asking:
    """Asks `TEXTS` in turn, by HTTP and by handle, from entry to exit."""

    def __init__(self, url: str, caller: Child, old: Disagreeing, new: Disagreeing) -> None:
        self.seen = Answers()
        self._old, self._new = old, new
        questions, due_s = map(self._question, cycle(TEXTS)), (n * HTTP_EVERY_S for n in count())
        self._loads = ExitStack()
        self._http = Load(url, questions, due_s, note=self._note)
        self._handle = HandleLoad(caller, cycle(TEXTS), self._by_handle, HANDLE_EVERY_S)

    def __enter__(self) -> Self:
        self._loads.enter_context(self._http)
        self._loads.enter_context(self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loads.close()
        self.seen.handle.update(self._handle.outcomes)

    def _judged(self, text: str, answer: Any) -> str:
        if not isinstance(answer, dict) or "scores" not in answer:
            return f"error {answer}"[:120]
        old, new = self._old.gave(text, answer), self._new.gave(text, answer)
        if not (old or new):
            self.seen.mixed.append(f"{text[:12]}: {answer}"[:300])
        what = {(True, True): "both", (True, False): "old", (False, True): "new"}.get(
            (old, new), "mixed"
        )
        self.seen.last_s[what] = time.monotonic()
        return what

    def _question(self, text: str) -> Question:
        # A list may span both models; each of its texts may not.
        pair = (text, TEXTS[0])

        def judge(answer: Answer) -> str:
            if answer.status != 200:
                return f"{answer.status} {answer.json()}"[:120]
            judged = zip(pair, answer.json(), strict=True)
            return "\n".join(self._judged(*one) for one in judged)

        return Question(post(json.dumps({"text": pair}).encode()), judge)

    def _note(self, one: Asked) -> None:
        self.seen.http.update(one.outcome.split("\n"))
        self.seen.slowest_s = max(self.seen.slowest_s, one.took_s)

    def _by_handle(self, text: str, found: dict[str, Any]) -> str:
        return self._judged(text, found.get("answer", found))


@dataclass
class Updated:
    """A cluster with a model, and models to go to."""

    there: Cluster
    caller: Child
    models: dict[str, Disagreeing]

    def deploy(self, place: Path, options: Options | None = None, *, wait: bool = True) -> None:
        self.there.update(*serving(place), wait=wait, **(options or {}))

    def asking(self, kind: str) -> Asking:
        return Asking(self.there.url, self.caller, self.models[BEFORE], self.models[kind])

    def info(self) -> dict[str, Any]:
        told: dict[str, Any] = requests.get(
            f"{self.there.url}/info", timeout=CLIENT_TIMEOUT_S
        ).json()
        return told


@contextmanager
def updatable() -> Iterator[Updated]:
    """A cluster of two replicas of each stage, and a process that calls them by handle."""
    with tempfile.TemporaryDirectory() as folder:
        models = disagreeing_models(Path(folder))
        with cluster(*serving(models[BEFORE].place)) as there:
            address = {
                "RAY_ADDRESS": there.process.ask(do="address")["address"],
                "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
            }
            with environment(address), child("tests.trials.handles") as caller:
                caller.ask(method="classify", args=[TEXTS[0]], kwargs={})  # its handle is made now
                yield Updated(there, caller, models)


def serving(place: Path) -> list[str]:
    """What `Cluster.update` changes for the model in that directory."""
    return [*ENGINE, f"model.id={place}"]


def update_under_load(
    running: Updated, kind: str, options: Options | None = None
) -> tuple[Answers, bool]:
    """There and back again; and whether each time the last answers were the new model's."""
    old, new = running.models[BEFORE], running.models[kind]
    arrived = []
    with running.asking(kind) as asking:
        for what, model in (("new", new), ("old", old)):
            time.sleep(2.0)
            running.deploy(model.place, options)
            since = time.monotonic()
            # Replicas that Serve stops answer what they hold.
            reached = wait_until(partial(_only, asking, what, since), 60.0)
            arrived.append(reached is not None)
    return asking.seen, all(arrived)


def _only(asking: Asking, what: str, since: float) -> bool:
    """Whether the other model has given no answer for two seconds."""
    other = {"new": "old", "old": "new"}[what]
    last = asking.seen.last_s
    now = time.monotonic()
    quiet = now - max(last.get(other, since), since) > 2.0
    return quiet and max(last.get(what, 0.0), last.get("both", 0.0)) > now - 2.0


def failed_update(running: Updated, broken: Path, why: str) -> tuple[Answers, dict[str, Any], bool]:
    """What callers and `/info` are told when an update fails; whether the status says why."""
    with running.asking(BEFORE) as asking:
        time.sleep(1.0)
        running.deploy(broken, wait=False)

        def told_why() -> bool:
            state = running.there.state()
            return why in state["message"] and state["status"] == "DEPLOY_FAILED"

        said = wait_until(told_why, 120.0)
        time.sleep(3.0)
        told = running.info()
    return asking.seen, told, said is not None


def heal(running: Updated) -> tuple[Answers, bool]:
    """An old Classifier is killed after a failed update; then the old config is deployed again."""
    with running.asking(BEFORE) as asking:
        kill(running.there, "Classifier")
        time.sleep(5.0)
        running.deploy(running.models[BEFORE].place)
        whole = wait_until(running.there.is_whole) is not None
        time.sleep(2.0)
    return asking.seen, whole and running.info()["update"] is None


def try_models(session: Session) -> None:
    with session.mode("models", 12) as part, updatable() as running:
        for kind in [kind for kind in running.models if kind != BEFORE]:
            how = f"an update to {kind}, and back, 2 replicas of each"
            with session.trying(part, ONE_MODEL, how):
                _note(part, how, *update_under_load(running, kind))
        how = "an update to more labels, and back, 1 replica of each"
        with session.trying(part, ONE_MODEL, how):
            running.deploy(running.models[BEFORE].place, SINGLE)
            _note(part, how, *update_under_load(running, "more labels", SINGLE))
            running.deploy(running.models[BEFORE].place)
        with tempfile.TemporaryDirectory() as folder:
            other = running.models["more labels"].place
            for how, broken, why in (
                (
                    "of other labels without weights",
                    without_weights(Path(folder), other),
                    "weights",
                ),
                (
                    "of other labels and weights that are no numbers",
                    without_numbers(Path(folder), other),
                    "no finite number",
                ),
            ):
                how = f"an update to a model {how}"
                with session.trying(part, OLD_SERVES, how):
                    seen, told, said = failed_update(running, broken, why)
                    kept = said and told["model"] == str(running.models[BEFORE].place)
                    kept &= told["update"] is not None and why in told["update"]["message"]
                    _note_old(part, how, seen, kept)
        how = "an old Classifier killed after that, then the old config deployed again"
        with session.trying(part, OLD_SERVES, how):
            _note_old(part, how, *heal(running))


def _note_old(part: Part, how: str, seen: Answers, kept: bool) -> None:
    kept &= set(seen.all) == {"both"}
    part.add(OLD_SERVES, how, sum(seen.all.values()), str(seen), kept)


def _note(part: Part, how: str, seen: Answers, arrived: bool) -> None:
    kept = set(seen.all) <= {"old", "new", "both"} and arrived and seen.slowest_s < MOST_SLOW_S
    part.add(ONE_MODEL, how, sum(seen.all.values()), str(seen), kept)
    part.figures[how] = {
        "http": dict(seen.http),
        "handle": dict(seen.handle),
        "mixed": seen.mixed[:5],
        "slowest_s": round(seen.slowest_s, 2),
    }
