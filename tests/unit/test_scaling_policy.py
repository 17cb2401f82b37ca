"""Replicas follow the work: virtual time, with Serve's own delays around the policy."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig

from deployments.config.check import check_config, load_config
from deployments.scaling import policy
from deployments.scaling.policy import AHEAD_S, BUSY, WAIT_S, BusyClock, FollowWork, Work

ROOT = Path(__file__).parents[2]
TICK_S = 0.5
START_S = 12.0

Load = Callable[[float], float]
"""Seconds since the start → replicas' worth of work that comes."""


def shipped() -> dict[str, Any]:
    config = load_config(ROOT / "serve_config.yaml")
    (classifier,) = [
        d for d in config["applications"][0]["deployments"] if d["name"] == "Classifier"
    ]
    found: dict[str, Any] = classifier["autoscaling_config"]
    return found


@dataclass
class Deployment:
    """Replicas that start in START_S, share the work and queue what is too much."""

    config: AutoscalingConfig
    now: float = 0.0
    target: int = 1
    starting: list[float] = field(default_factory=list)
    running: int = 1
    backlog_s: float = 0.0
    series: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[float, int]] = field(default_factory=list)

    def run(self, load: Load, seconds: float, decide: Any) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_S
            self.starting = [at for at in self.starting if at > self.now]
            self.running = min(self.target - len(self.starting), self.target)
            self.work(load(self.now))
            self.decide(decide)

    def work(self, load: float) -> None:
        self.backlog_s += load * TICK_S
        done = min(self.backlog_s, self.running * TICK_S)
        self.backlog_s -= done
        for k in range(self.running):
            for name, value in (
                (BUSY, done / TICK_S / self.running),
                (WAIT_S, self.backlog_s / self.running),
            ):
                samples = self.series.setdefault(name, {}).setdefault(str(k), [])
                samples.append(SimpleNamespace(timestamp=self.now, value=value))
                del samples[:-40]

    def decide(self, decide: Any) -> None:
        series = {
            name: {k: s for k, s in by.items() if int(k) < self.running}
            for name, by in self.series.items()
        }
        wanted, self.state = decide(
            SimpleNamespace(
                app_name="classify", deployment_name="Classifier", raw_metrics=series,
                current_num_replicas=self.running, target_num_replicas=self.target,
                total_num_requests=0, current_time=self.now, config=self.config,
                policy_state=self.state, capacity_adjusted_min_replicas=self.config.min_replicas,
                capacity_adjusted_max_replicas=self.config.max_replicas,
            )
        )  # fmt: skip
        wanted = max(self.config.min_replicas, min(self.config.max_replicas, math.ceil(wanted)))
        if wanted != self.target:
            self.starting += [self.now + START_S] * (wanted - self.target)
            self.starting = self.starting[: max(0, wanted - 1)]
            self.history.append((self.now, wanted))
            self.target = wanted


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Deployment]:
    """Runs a load through the shipped settings, with Serve's delays, in virtual time."""

    def run(load: Load, seconds: float, **changes: Any) -> Deployment:
        config = AutoscalingConfig(**{**shipped(), **changes})
        there = Deployment(config, target=max(1, config.min_replicas), running=1)
        monkeypatch.setattr("ray.serve.autoscaling_policy.time.time", lambda: there.now)
        kwargs = shipped()["policy"]["policy_kwargs"]
        there.run(load, seconds, _apply_autoscaling_config(FollowWork(**kwargs)))
        return there

    return run


def steady(busy: float) -> Load:
    return lambda now: busy


def test_a_saturated_replica_gets_a_second_one_within_15_s(
    scale: Callable[..., Deployment],
) -> None:
    there = scale(steady(1.0), 60)
    at, replicas = there.history[0]
    assert replicas == 2
    assert at <= 15
    assert len(there.history) == 1


def test_one_that_is_90_percent_busy_too_and_one_that_is_35_never(
    scale: Callable[..., Deployment],
) -> None:
    assert scale(steady(0.9), 60).history[0][1] == 2
    assert scale(steady(0.35), 600).history == []


@pytest.mark.parametrize(
    ("busy", "replicas"), [(0.7, 1), (0.71, 2), (1.4, 2), (3.0, 4), (6.0, 7), (20.0, 22)]
)
def test_many_replicas_may_be_busier_than_a_lone_one(busy: float, replicas: int) -> None:
    """Square-root staffing: a text seldom finds all of many at work."""
    wanted = FollowWork().wanted(Work(busy, 0.0, 30), 0.0, target=30, running=30, look_back_s=10.0)
    assert math.ceil(round(wanted, 9)) == replicas
    assert FollowWork(target_busy=1.0).wanted(
        Work(busy, 0.0, 30), 0.0, target=30, running=30, look_back_s=10.0
    ) == pytest.approx(busy)


def test_a_burst_of_3_s_changes_nothing(scale: Callable[..., Deployment]) -> None:
    assert scale(lambda now: 1.0 if 10 <= now < 13 else 0.1, 120).history == []


def test_quiet_brings_it_back_after_the_downscale_delay(scale: Callable[..., Deployment]) -> None:
    there = scale(lambda now: 1.2 if now < 60 else 0.1, 600)
    (up, two), (down, one) = there.history
    assert (two, one) == (2, 1)
    assert 60 + there.config.downscale_delay_s <= down <= 60 + there.config.downscale_delay_s + 90
    assert up < 20


def test_a_flash_crowd_is_met_by_what_waits_not_by_what_works(
    scale: Callable[..., Deployment],
) -> None:
    """One busy replica says no more than that it is busy; its queue says by how much."""
    there = scale(lambda now: 6.0 if now >= 10 else 0.2, 60, max_replicas=12)
    assert there.history[0][1] >= 6
    assert there.history[0][0] <= 10 + 15


def test_it_does_not_flap_under_a_load_that_swings(scale: Callable[..., Deployment]) -> None:
    def load(now: float) -> float:
        return 2.0 + math.sin(now / 20)

    there = scale(load, 1_800, max_replicas=8)
    steps = [b - a for (_, a), (_, b) in zip(there.history, there.history[1:], strict=False)]
    turns = sum(a * b < 0 for a, b in itertools.pairwise(steps))
    assert turns <= 1
    assert there.backlog_s < there.running * 1.0


def test_to_zero_and_no_further_than_the_last_minute_needed_less_one(
    scale: Callable[..., Deployment],
) -> None:
    there = scale(lambda now: 3.0 if now < 120 else 0.0, 2_000, min_replicas=0, max_replicas=8)
    after = [n for at, n in there.history if at > 120]
    assert after[-1] == 0
    assert all(a - b >= 0 for a, b in itertools.pairwise(after))


def test_replicas_that_say_nothing_count_as_neither_busy_nor_idle() -> None:
    follow = FollowWork()
    silent = Work(0.0, 0.0, 0)
    assert follow.wanted(silent, 0.0, target=3, running=3, look_back_s=10) == 3
    idle = Work(0.1, 0.0, 2)
    assert follow.wanted(idle, 1.0, target=3, running=3, look_back_s=10) == 3  # one just started
    idle = Work(0.1, 0.0, 3)
    assert follow.wanted(idle, 2.0, target=3, running=3, look_back_s=10) < 1


def test_numbers_of_a_replica_that_stopped_reporting_go_stale() -> None:
    sample = SimpleNamespace(timestamp=100.0, value=1.0)
    for now, reporting in ((101.0, 1), (104.0, 1), (106.0, 0)):
        assert Work.of({BUSY: {"a": [sample]}}, now, 1.0).reporting == reporting


def test_a_policy_that_fails_keeps_the_replicas_says_so_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(policy.logger, "exception", lambda line, *args: said.append(line % args))
    there = Deployment(AutoscalingConfig(**shipped()), target=2)
    follow, broken = FollowWork(), SimpleNamespace(deployment_name="Classifier")
    broken.target_num_replicas = 2
    for _ in range(3):
        assert follow(broken) == (2, {})
    assert said == ["autoscaling of Classifier failed; its 2 replicas stay"]
    there.run(steady(1.0), 30, follow)
    assert there.target == 2


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"target_busy": 0}, "target_busy is 0"),
        ({"target_busy": 1.5}, "above 0, to 1"),
        ({"max_wait_s": -1}, "max_wait_s is -1"),
        ({"max_wait_s": float("inf")}, "max_wait_s is inf"),
        ({"target_busi": 0.5}, "did you mean target_busy?"),
        ({"target_busy": "high"}, "not supported"),
        ({"fed_by": "Tokeniser"}, "no deployment is called 'Tokeniser'"),
    ],
)
def test_the_check_refuses_senseless_numbers_before_anything_starts(
    told: dict[str, Any], word: str
) -> None:
    config = load_config(ROOT / "serve_config.yaml")
    deployment = config["applications"][0]["deployments"][1]
    deployment["autoscaling_config"]["policy"]["policy_kwargs"] = told
    (problem,) = check_config(config)
    assert "autoscaling_config.policy.policy_kwargs" in problem.path
    assert word in problem.message


def told(now: float, app: str, name: str, **numbers: float) -> Any:
    """What Serve shows the policy of a deployment with one replica that says these numbers."""
    series = {
        key: {"one": [SimpleNamespace(timestamp=now, value=value)]}
        for key, value in numbers.items()
    }
    return SimpleNamespace(
        app_name=app, deployment_name=name, raw_metrics=series, current_num_replicas=1,
        target_num_replicas=1, current_time=now, config=AutoscalingConfig(**shipped()),
        capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=8,
    )  # fmt: skip


def test_what_the_ingress_holds_back_counts_for_the_classifier() -> None:
    """It sends few micro-batches at once, so a flash crowd waits there, not at the model."""
    tokenizer, classifier = FollowWork(), FollowWork(fed_by="Tokenizer")
    busy = {BUSY: 1.0, WAIT_S: 0.2}
    tokenizer(told(100.0, "classify", "Tokenizer", **{BUSY: 0.1, AHEAD_S: 6.0}))
    assert classifier(told(100.0, "classify", "Classifier", **busy))[0] == pytest.approx(6.0)
    assert FollowWork()(told(100.0, "classify", "Classifier", **busy))[0] < 2
    # Not of another application, nor what an ingress said that is gone.
    assert FollowWork(fed_by="Tokenizer")(told(100.0, "other", "Classifier", **busy))[0] < 2
    late = told(110.0, "classify", "Classifier", **busy)
    assert FollowWork(fed_by="Tokenizer")(late)[0] < 2


def test_the_state_is_written_whole_beside_serves_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.FileHandler(tmp_path / "controller.log")
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [handler])
    there = Deployment(AutoscalingConfig(**shipped()))
    there.run(steady(1.0), 30, _unlimited(FollowWork()))
    handler.close()
    state = json.loads((tmp_path / "autoscaling_classify_Classifier.json").read_text())
    assert (state["target"], state["least"], state["most"]) == (2, 1, 2)
    (decision,) = state["decisions"]
    assert (decision["before"], decision["after"]) == (1, 2)
    assert decision["work"]["busy"] > 0.7
    assert [path.suffix for path in tmp_path.glob(".*")] == []


def test_a_state_that_cannot_be_written_changes_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: Callable[..., Deployment]
) -> None:
    handler = logging.FileHandler(tmp_path / "gone" / "controller.log", delay=True)
    monkeypatch.setattr(logging.getLogger("ray.serve"), "handlers", [handler])
    monkeypatch.setattr(policy.logger, "info", lambda *_: None)
    monkeypatch.setattr(policy.logger, "exception", lambda line, *_: pytest.fail(line))
    assert scale(steady(1.0), 60).history[0][1] == 2


def _unlimited(follow: FollowWork) -> Any:
    return lambda ctx: (follow(ctx)[0], {})


def test_a_busy_clock_tells_shares_of_the_time_since_it_was_last_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(policy.time, "monotonic", lambda: now[0])
    clock = BusyClock()
    for at, busy_s, share in ((102.0, 1.0, 0.5), (104.0, 1.0, 0.0), (105.0, 3.0, 1.0)):
        now[0] = at
        assert clock.share(busy_s) == share
