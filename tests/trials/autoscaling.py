"""Mode `autoscaling`: the shipped config under loads that need a second Classifier, or none.

Open loop where a load is a share of the capacity, closed where it is a number of connections. On a
machine of this size the client and a second replica share the cores of the first, so it is the
decision that counts here, not what it brings.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, repeat
from pathlib import Path
from typing import Any, Self

import numpy as np

from deployments.bench.client import RIGHT, Asked, Load, Question, post
from deployments.scaling.policy import STATE_FILE
from deployments.scaling.report import read_state
from scripts.bench.service import Service, read_config, running_service

from .session import Part, Session

TEXT = "房间很干净，离地铁站也近，下次还会再来。服务员态度很好，早餐也不错。" * 2
DOWNSCALE_S, QUICK_DOWNSCALE_S = 60.0, 15.0
SAMPLE_S = 0.5
WINDOW_S = 3.0
KEPT_EVERY = 4  # of the samples, in the file that is kept
WITHIN_S = 15.0
START_S = 120.0
STATE = STATE_FILE.format(app="classify", deployment="Classifier")


@dataclass(frozen=True, slots=True)
class Phase:
    """A load. share: of the capacity, at even times; None: each connection asks when answered."""

    name: str
    seconds: float
    connections: int
    share: float | None = None
    texts: int = 1
    grows: bool = False


PHASES = (
    Phase("4 connections, 35 % of the capacity", 40, 4, share=0.35),
    Phase("a burst of 3 s from 64 connections", 3, 64),
    Phase("64 connections", 45, 64, grows=True),
    Phase("16 connections, 90 % of the capacity", 45, 16, share=0.9, grows=True),
    Phase("lists of 256 texts from one client", 45, 1, texts=256, grows=True),
)


class Watched:
    """What the policy writes about the Classifier, twice a second from entry to exit."""

    def __init__(self, file: Path) -> None:
        self.series: list[dict[str, Any]] = []
        self._file, self._stop = file, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._began = time.time()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def now_s(self) -> float:
        return time.time() - self._began

    def since(self, at_s: float) -> list[dict[str, Any]]:
        return [one for one in self.series if one["at_s"] >= at_s]

    def wait_for(self, running: int, within_s: float) -> bool:
        """Until that many run, and no other number is aimed at."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if self.series and {self.series[-1][k] for k in ("running", "target")} == {running}:
                return True
            time.sleep(SAMPLE_S)
        return False

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            try:
                state = read_state(self._file.read_text(encoding="utf-8"))
            except OSError:
                continue
            if state is not None:
                shown = {key: state[key] for key in ("running", "target", "wanted")}
                told = {"at_s": self.now_s, **shown, **state["work"]}
                self.series.append({name: round(value, 3) for name, value in told.items()})


def try_autoscaling(session: Session) -> None:
    """Which loads bring a second Classifier, how soon, and that it goes again."""
    downscale_s = QUICK_DOWNSCALE_S if session.quick else DOWNSCALE_S
    config = read_config()
    for one in config["applications"][0]["deployments"]:
        one["autoscaling_config"]["downscale_delay_s"] = downscale_s
    with session.mode("autoscaling", len(PHASES) + 2) as part:
        session.step("autoscaling: starting")
        # Named, as what `auto` takes differs from machine to machine.
        changes = ("engine.name=torch", "engine.dtype=float32")
        with running_service(changes, config, scales=True) as service:
            logs = service.run_dir / "ray" / "session_latest" / "logs"
            with Watched(logs / "serve" / STATE) as watched:
                session.step("autoscaling: capacity")
                capacity = _per_s(_asked(service, Phase("", 6, 16), 0.0), 6)
                part.figures |= {"capacity_per_s": capacity, "downscale_delay_s": downscale_s}
                part.figures |= {"phases": [], "series": watched.series}
                for phase in PHASES:
                    watched.wait_for(1, START_S + 2 * downscale_s)
                    session.step(f"autoscaling: {phase.name}")
                    part.figures["phases"].append(_try(service, phase, capacity, watched))
        part.figures["series"] = watched.series[::KEPT_EVERY]
        _judge(part)


def _try(service: Service, phase: Phase, capacity: float, watched: Watched) -> dict[str, Any]:
    began = watched.now_s
    asked = _asked(service, phase, capacity)
    ended = watched.now_s
    # What a burst has set off comes a little later.
    time.sleep(WITHIN_S if not phase.grows else 0)
    seen = watched.since(began)
    asked_for = next((one["at_s"] - began for one in seen if one["target"] > 1), None)
    arrived = next((one["at_s"] - began for one in seen if one["running"] > 1), None)
    outcomes = Counter(one.outcome for one in asked)
    back = None
    if asked_for is not None and watched.wait_for(1, START_S + 3 * DOWNSCALE_S):
        back = watched.now_s - ended
    times = [one.took_s for one in asked if one.outcome == RIGHT]
    p50_ms, p99_ms = (np.percentile(times, (50, 99)) * 1e3).round(1).tolist()
    return {
        "name": phase.name, "grows": phase.grows, "began_s": began, "ended_s": ended,
        "requests": len(asked), "outcomes": dict(outcomes), "p50_ms": p50_ms, "p99_ms": p99_ms,
        "busy": float(np.median([one["busy"] for one in seen if one["at_s"] < ended] or [0.0])),
        "per_s": _per_s(asked, ended - began),
        "asked_for_s": asked_for, "arrived_s": arrived, "back_s": back,
        "windows": _windows(asked, began),
    }  # fmt: skip


def _asked(service: Service, phase: Phase, capacity: float) -> list[Asked]:
    text = TEXT if phase.texts == 1 else [TEXT] * phase.texts
    question = Question(post(json.dumps({"text": text}, ensure_ascii=False).encode()))
    due: Iterator[float] = repeat(0.0)
    if phase.share is not None:
        due = (k / (phase.share * capacity) for k, _ in enumerate(cycle([0])))
    load = Load(service.endpoint.url, repeat(question), due, connections=phase.connections)
    with load:
        time.sleep(phase.seconds)
    return load.asked


def _windows(asked: list[Asked], began_s: float) -> list[dict[str, float]]:
    """Of every WINDOW_S: right answers a second, and their p99."""
    took: dict[int, list[float]] = {}
    for one in asked:
        if one.outcome == RIGHT and one.answered_s is not None:
            took.setdefault(int(one.answered_s / WINDOW_S), []).append(one.took_s)
    return [
        {
            "at_s": began_s + (k + 0.5) * WINDOW_S,
            "per_s": len(times) / WINDOW_S,
            "p99_ms": float(np.percentile(times, 99) * 1e3),
        }
        for k, times in sorted(took.items())
    ]


def _per_s(asked: list[Asked], seconds: float) -> float:
    return sum(one.outcome == RIGHT for one in asked) / seconds


def _judge(part: Part) -> None:
    for phase in part.figures["phases"]:
        wrong = sum(n for outcome, n in phase["outcomes"].items() if outcome != RIGHT)
        seen = f"busy {phase['busy']:.0%}, p99 {phase['p99_ms']:,.0f} ms"
        if phase["grows"]:
            asked_for, back = phase["asked_for_s"], phase["back_s"]
            told = "never" if asked_for is None else f"after {asked_for:.0f} s"
            gone = "not" if back is None else f"after {back:.0f} s"
            part.add(
                f"A second Classifier is asked for within {WITHIN_S:.0f} s, and goes when it is "
                "quiet; nothing fails",
                phase["name"],
                phase["requests"],
                f"{told}, gone {gone}; {seen}; {wrong} not right",
                asked_for is not None and asked_for <= WITHIN_S and back is not None and not wrong,
            )
        else:
            part.add(
                "No second Classifier is asked for; nothing fails",
                phase["name"],
                phase["requests"],
                f"{'none' if phase['asked_for_s'] is None else 'one'}; {seen}; {wrong} not right",
                phase["asked_for_s"] is None and not wrong,
            )
