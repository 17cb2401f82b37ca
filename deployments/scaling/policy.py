"""How many replicas a deployment needs, from the work that its replicas say they have.

Serve's controller runs this ten times a second for each deployment, so it imports next to nothing
and computes little.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from deployments.scaling.files import write_beside_log

logger = logging.getLogger("ray.serve")

POLICY = "deployments.scaling.policy:FollowWork"
"""As `policy_function` of an autoscaling_config names it."""

BUSY, WAIT_S, TOKENS_PER_S, AHEAD_S = "busy", "wait_s", "tokens_per_s", "ahead_s"
"""What `record_autoscaling_stats` of our replicas says: the share of time in which the replica
worked, 0 to 1; how long what it holds will take it; what it reads in full batches; and of an
ingress, how long all that it has taken in would take one replica behind it."""

# Replicas report their last few numbers; the mean of so many report intervals is "now".
_INTERVALS = 2
# Below so much of one replica there is nothing to do: a health check's pass is no work.
_IDLE = 0.02
# A replica that has said nothing for so many intervals is as one that has not said anything yet.
_STALE = 5
_MINUTE_S = 60.0
N_DECISIONS = 10
WRITE_EVERY_S = 1.0
STATE_FILE = "autoscaling_{app}_{deployment}.json"
"""In Serve's log directory on the controller's node, where Ray's dashboard lets it be read."""


class Sample(Protocol):
    """One number of one replica, at a time (seconds since 1970)."""

    timestamp: float
    value: float


Series = Mapping[str, Mapping[Any, Sequence[Sample]]]
"""Number's name → replica → its samples, oldest first."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the replicas of a deployment have to do. busy: replicas' worth of it, all together.

    wait_s: how long all that waits would take one replica. reporting: how many said so. ahead_s:
    how long what waits here would take one replica of the deployment behind this one.
    """

    busy: float
    wait_s: float
    reporting: int
    tokens_per_s: float = 0.0
    ahead_s: float = 0.0

    @staticmethod
    def of(series: Series, now: float, interval_s: float) -> Work:
        """As of `now`, with replicas that report every `interval_s`."""

        def mean(samples: Sequence[Sample]) -> float | None:
            since = now - _INTERVALS * interval_s
            recent = [sample.value for sample in samples if sample.timestamp >= since]
            if not recent and samples and samples[-1].timestamp >= now - _STALE * interval_s:
                recent = [samples[-1].value]
            return sum(recent) / len(recent) if recent else None

        busy, wait, speed, ahead = (
            [m for one in series.get(name, {}).values() if (m := mean(one)) is not None]
            for name in (BUSY, WAIT_S, TOKENS_PER_S, AHEAD_S)
        )
        return Work(sum(busy), sum(wait), len(busy), sum(speed), sum(ahead))


@dataclass(frozen=True, slots=True)
class Decision:
    """Serve changed how many replicas it aims at. at: seconds since 1970."""

    at: float
    before: int
    after: int
    work: Work


# (application, deployment) → when it was last asked for, and its `Work.ahead_s`. Serve runs the
# policies of all deployments in one process, its controller, and shows each its own replicas only.
_AHEAD: dict[tuple[str, str], tuple[float, float]] = {}


@dataclass(slots=True)
class _Wanted:
    at: float
    replicas: float


@dataclass
class FollowWork:
    """Wants as many replicas as the work keeps busy and some to spare, or as bring the wait of what
    they hold below `max_wait_s`, whichever is more.

    A lone replica may be busy up to `target_busy`. Of several that share their work each may be
    busier, as a text seldom finds all of them at work: to b busy ones come c·√b, with c so that b =
    target_busy gives 1 (square-root staffing: Halfin and Whitt 1981, doi:10.1287/opre.29.3.567).

    It shrinks by the largest need of `look_back_period_s`, and to no less than one below what the
    last minute needed. Replicas that have reported nothing yet count as neither busy nor idle: with
    one of them about, there is no shrinking. `min_replicas`, `max_replicas` and the delays of
    `autoscaling_config` hold as with Serve's own policy.

    target_busy: above 0, to 1. max_wait_s: seconds, above 0. fed_by: the deployment that holds back
    what would only queue here, and follows this policy too; what waits there counts.

    Raises:
        ValueError: another number.
    """

    target_busy: float = 0.7
    max_wait_s: float = 1.0
    fed_by: str | None = None
    _wanted: deque[_Wanted] = field(default_factory=deque, repr=False)
    _target: int | None = field(default=None, repr=False)
    _decisions: deque[Decision] = field(
        default_factory=lambda: deque(maxlen=N_DECISIONS), repr=False
    )
    _written_at: float = field(default=0.0, repr=False)
    _failed: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.target_busy <= 1:
            raise ValueError(f"target_busy is {self.target_busy}; set it above 0, to 1, as 0.7")
        if not (self.max_wait_s > 0 and math.isfinite(self.max_wait_s)):
            raise ValueError(f"max_wait_s is {self.max_wait_s}; set it above 0 s, as 1.0")

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        """Serve's `AutoscalingContext` in, wanted replicas out; see ray.serve.config."""
        try:
            wanted = self._decide(ctx)
            self._failed = ""
        except Exception as exc:
            wanted = ctx.target_num_replicas
            said = f"{type(exc).__name__}: {exc}"
            if said != self._failed:  # ten times a second is not louder
                self._failed = said
                logger.exception(
                    "autoscaling of %s failed; its %d replicas stay", ctx.deployment_name, wanted
                )
        # What is returned stays with Serve until the next call; it keeps its own delays in there.
        return wanted, {}

    def _decide(self, ctx: Any) -> float:
        now, target = float(ctx.current_time or time.time()), int(ctx.target_num_replicas)
        interval_s = ctx.config.metrics_interval_s
        work = Work.of(ctx.raw_metrics or {}, now, interval_s)
        _AHEAD[ctx.app_name, ctx.deployment_name] = now, work.ahead_s
        at, ahead_s = _AHEAD.get((ctx.app_name, self.fed_by or ""), (-math.inf, 0.0))
        if now - at <= _STALE * interval_s:
            # All that was taken in, what waits here among it.
            work = replace(work, wait_s=max(work.wait_s, ahead_s))
        wanted = self.wanted(
            work,
            now,
            target=target,
            running=int(ctx.current_num_replicas),
            look_back_s=ctx.config.look_back_period_s,
        )
        if self._target not in (None, target):
            decision = Decision(now, int(self._target or 0), target, work)
            self._decisions.append(decision)
            logger.info("autoscaling %s: %s", ctx.deployment_name, json.dumps(asdict(decision)))
        changed = self._target != target
        self._target = target
        if changed or now - self._written_at >= WRITE_EVERY_S:
            self._written_at = now
            self._write(ctx, now, work, wanted)
        return wanted

    def wanted(
        self, work: Work, now: float, *, target: int, running: int, look_back_s: float
    ) -> float:
        """Replicas for this work. target: what Serve aims at now. running: how many there are."""
        if not work.reporting:
            return target
        spare = (1 - self.target_busy) / math.sqrt(self.target_busy)
        needed = max(work.busy + spare * math.sqrt(work.busy), work.wait_s / self.max_wait_s)
        needed = 0.0 if needed < _IDLE else needed
        self._wanted.append(_Wanted(now, needed))
        while self._wanted[0].at < now - max(look_back_s, _MINUTE_S):
            self._wanted.popleft()
        if math.ceil(needed) >= target:
            return needed
        if work.reporting < running:
            return target
        lately = max(one.replicas for one in self._wanted if one.at >= now - look_back_s)
        minute = max(one.replicas for one in self._wanted if one.at >= now - _MINUTE_S)
        return min(max(lately, math.ceil(minute) - 1.0), target)

    def _write(self, ctx: Any, now: float, work: Work, wanted: float) -> None:
        state = {
            "at": now,
            "app": ctx.app_name,
            "deployment": ctx.deployment_name,
            "running": ctx.current_num_replicas,
            "target": ctx.target_num_replicas,
            "wanted": round(wanted, 3),
            "least": ctx.capacity_adjusted_min_replicas,
            "most": ctx.capacity_adjusted_max_replicas,
            "target_busy": self.target_busy,
            "max_wait_s": self.max_wait_s,
            "work": asdict(work),
            "decisions": [asdict(decision) for decision in self._decisions],
        }
        name = STATE_FILE.format(app=ctx.app_name, deployment=ctx.deployment_name)
        write_beside_log(name, json.dumps(state))


class BusyClock:
    """The share of time in which something worked, between one question and the next.

    busy_s: all seconds in which it has worked so far.
    """

    def __init__(self) -> None:
        self._at, self._busy_s = time.monotonic(), 0.0

    def share(self, busy_s: float) -> float:
        now = time.monotonic()
        elapsed, worked = now - self._at, busy_s - self._busy_s
        self._at, self._busy_s = now, busy_s
        return min(max(worked / elapsed, 0.0), 1.0) if elapsed > 0 else 0.0
