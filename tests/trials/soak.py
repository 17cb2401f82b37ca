"""Mode `soak`: an hour of mixed traffic in waves, with replicas that come and go.

Every process is looked at all the while: what grows in an hour grows in a week.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import requests

from deployments.bench.client import RIGHT, Endpoint
from scripts.bench.load import load
from scripts.bench.service import Service, read_config, running_service

from .guests import labelled, made_texts
from .handles import HandleLoad, calling
from .mixed import MixedLoad, Waves, asks
from .places import Run
from .session import Part, Session
from .soak_findings import judge
from .watch import Watch, tracebacks

QUICK_MINUTES = 1.0
WAVES = 10
SHORTEST_WAVE_S = 30.0
SAMPLES = 360
WARM_SHARE = 0.15  # of the time, for every process from its own start: caches and pools fill
CLOSED_LOOP_S = 10.0
CAPACITY_SHARE = 0.9  # as in `overload`
CLEAR = 0.6  # score of a text whose label no engine's rounding may change
TEXTS = 2_000
SHED = ("Overloaded", "DeadlineExceeded")


@dataclass(frozen=True, slots=True)
class Plan:
    """Times of one soak, in seconds."""

    length_s: float
    shortest_wave_s: float = SHORTEST_WAVE_S

    @property
    def wave_s(self) -> float:
        return max(self.length_s / WAVES, self.shortest_wave_s)

    @property
    def sample_s(self) -> float:
        return min(max(self.length_s / SAMPLES, 0.5), 10.0)

    @property
    def report_s(self) -> float:
        """Figures are written to the file so often."""
        return min(60.0, self.length_s / 4)

    def autoscaling(self) -> dict[str, float]:
        """Replicas follow the waves: the shipped delay on the way down is as long as a wave."""
        look_back_s = min(10.0, self.wave_s / 12)
        return {
            "target_ongoing_requests": 2,
            "metrics_interval_s": 1.0,
            "look_back_period_s": look_back_s,
            "upscale_delay_s": min(10.0, self.wave_s / 30),
            "downscale_delay_s": max(self.wave_s / 12, look_back_s),
        }


@dataclass
class Soak:
    """One soak under way, and what was seen of it."""

    session: Session
    part: Part
    plan: Plan
    capacity_per_s: float
    watch: Watch = field(default_factory=Watch)
    classifiers: list[tuple[float, int]] = field(default_factory=list)
    minutes: list[dict[str, Any]] = field(default_factory=list)

    def run(self, service: Service, known: dict[str, str]) -> None:
        """Loads and watches until the time is over; the figures are written all the while."""
        waves = Waves(self.capacity_per_s, self.plan.wave_s)

        def judge(text: str, found: dict[str, Any]) -> str:
            if raised := str(found.get("raised", "")):
                shed = any(name in raised for name in SHED)
                return "shed" if shed else f"raised {raised}"
            answer = found["answer"]
            right = isinstance(answer, dict) and answer["label"] == known[text]
            return RIGHT if right else "wrong"

        with calling(Run(service)) as caller:
            mixed = MixedLoad(service.endpoint.url, known, waves)
            by_handle = HandleLoad(caller, cycle(known), judge)
            try:
                with mixed, by_handle:
                    self._watch(mixed, by_handle, waves)
            finally:
                self._note(mixed, by_handle)
        self.part.figures["ready_after"] = _is_ready(service.endpoint.url)
        time.sleep(2)  # logs are written in bursts
        self.part.figures["tracebacks"] = tracebacks()

    def _watch(self, mixed: MixedLoad, by_handle: HandleLoad, waves: Waves) -> None:
        next_sample_s = next_report_s = 0.0
        while (now_s := self.watch.now_s()) < self.plan.length_s:
            if not mixed.is_alive:
                raise RuntimeError("the load has ended before its time")
            kinds = self.watch.sample()
            self.classifiers.append((now_s, kinds["Classifier"]))
            if now_s >= next_report_s:
                next_report_s += self.plan.report_s
                self.minutes.append(
                    {
                        "minute": round(now_s / 60, 2),
                        "load": round(waves.share(now_s), 2),
                        "classifiers": kinds["Classifier"],
                        "asked": mixed.n_sent,
                        "shed": _count(mixed, "429", "408"),
                        **mixed.latencies_ms(),
                    }
                )
                self._note(mixed, by_handle)
                self.session.step(
                    f"soak: minute {now_s / 60:.0f}, load {waves.share(now_s):.0%}, "
                    f"{kinds['Classifier']} classifiers, {mixed.n_sent:,} asked"
                )
            next_sample_s = max(next_sample_s + self.plan.sample_s, self.watch.now_s() + 0.1)
            time.sleep(max(next_sample_s - self.watch.now_s(), 0))

    def _note(self, mixed: MixedLoad, by_handle: HandleLoad) -> None:
        outcomes: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(dict(mixed.by_kind).items()):
            outcomes.setdefault(kind, {})[outcome] = count
        warm_s = WARM_SHARE * self.plan.length_s
        watched = sorted(self.watch.processes.values(), key=lambda one: (one.kind, one.times_s[0]))
        self.part.figures |= {
            "asked": mixed.n_sent,
            "outcomes": outcomes,
            "by_handle": dict(by_handle.outcomes),
            "examples": mixed.examples,
            "minutes": self.minutes,
            "classifiers": [[round(at, 1), n] for at, n in changes(self.classifiers)],
            "processes": [one.figures(warm_s) for one in watched],
            "together": self.watch.together.figures(warm_s),
            "series": {
                f"{one.kind} {one.pid}": one.thinned(self.plan.report_s)
                for one in (*watched, self.watch.together)
            },
        }


def try_soak(session: Session) -> None:
    """Outcomes, memory and open files of an hour at 70 % of the capacity on average."""
    plan = Plan(60.0 * (QUICK_MINUTES if session.quick else session.minutes))
    with session.mode("soak", int(plan.length_s / plan.report_s) + 3) as part:
        session.step("soak: reference labels")
        known = known_labels(TEXTS)
        try:
            session.step("soak: starting")
            with running(plan) as service:
                session.step("soak: capacity")
                soak_of(session, part, plan, service, known).run(service, known)
        finally:
            if part.figures.get("outcomes"):
                judge(part)


def running(plan: Plan, changes: tuple[str, ...] = ()) -> AbstractContextManager[Service]:
    """The service as shipped, but that Classifiers come and go with the waves of `plan`."""
    config = read_config()
    for one in config["applications"][0]["deployments"]:
        if one["name"] == "Classifier":
            one["autoscaling_config"] |= plan.autoscaling()
    return running_service(changes, config, scales=True)


def soak_of(
    session: Session,
    part: Part,
    plan: Plan,
    service: Service,
    known: dict[str, str],
    closed_loop_s: float = CLOSED_LOOP_S,
) -> Soak:
    """The soak of a service whose capacity for this very mix is measured first."""
    capacity = CAPACITY_SHARE * closed_loop(service, known, closed_loop_s)
    part.figures |= {
        "capacity_per_s": round(capacity, 1),
        "length_s": plan.length_s,
        "wave_s": plan.wave_s,
        "sample_s": plan.sample_s,
        "warm_s": WARM_SHARE * plan.length_s,
        "autoscaling": plan.autoscaling(),
        "engine": {k: service.info[k] for k in ("engine", "dtype", "num_threads")},
    }
    return Soak(session, part, plan, capacity)


def known_labels(count: int) -> dict[str, str]:
    """Texts of 2 to 60 words → label, but for those that the model is in two minds about."""
    rng = random.Random(65)
    short = made_texts(rng, count * 9 // 10, 20)
    long = [f"{text}。" for text in made_texts(rng, count // 10, 60)]
    found = labelled(short + long)
    return {text: label for text, (label, score) in found.items() if score > CLEAR}


def closed_loop(service: Service, known: dict[str, str], seconds: float) -> float:
    """Requests a second of the mix's answered kinds, with 64 connections."""
    source = asks(known, seed=3)
    bodies: dict[str, bytes] = {}
    while len(bodies) < 500:
        ask = next(source)
        if ask.status == 200 and ask.hang_up_s is None and b"timeout_ms" not in ask.body:
            bodies[str(len(bodies))] = ask.body
    endpoint = Endpoint(
        service.endpoint.url,
        service.endpoint.path,
        body=lambda number: bodies[number],
        label_of=service.endpoint.label_of,
    )
    load(endpoint, list(bodies), 64, min(3.0, seconds))
    return load(endpoint, list(bodies), 64, seconds).requests_per_s


def changes(counts: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Where the number is another than before, the first included."""
    out: list[tuple[float, int]] = []
    for at, count in counts:
        if not out or out[-1][1] != count:
            out.append((at, count))
    return out


def _count(mixed: MixedLoad, *outcomes: str) -> int:
    counted: Counter[str] = Counter()
    for (_, outcome), count in dict(mixed.by_kind).items():
        counted[outcome] += count
    return sum(counted[outcome] for outcome in outcomes)


def _is_ready(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{url}/ready", timeout=30).ok
    return False
