"""Serve's own delays around a policy, in simulated time: its code, given another clock.

The only module here that imports Ray.
"""

from __future__ import annotations

from typing import Any

from ray.serve.autoscaling_policy import _apply_delay_logic, _apply_scaling_factors
from ray.serve.config import AutoscalingConfig

from deployments.scaling.policy import FollowWork, Work


class Autoscaler:
    """What Serve's controller makes of one deployment's `autoscaling_config` with our policy.

    Raises:
        ValueError: Serve or the policy refuses a number of it.
    """

    def __init__(self, autoscaling_config: dict[str, Any]) -> None:
        self.config = AutoscalingConfig(**autoscaling_config)
        kwargs = (autoscaling_config.get("policy") or {}).get("policy_kwargs") or {}
        self._policy = FollowWork(**kwargs)
        self._state: dict[str, Any] = {}

    def target(self, work: Work, now: float, *, target: int, running: int) -> int:
        """How many replicas to aim at from now on, within `min_replicas` and `max_replicas`."""
        wanted = self._policy.wanted(
            work, now, target=target, running=running, look_back_s=self.config.look_back_period_s
        )
        factored = max(0, _apply_scaling_factors(wanted, running, self.config))
        if running or not factored:
            decided, self._state = _apply_delay_logic(
                factored, target, self.config, self._state, now
            )
        else:  # Serve waits for nothing where nobody serves
            decided = factored
        return int(max(self.config.min_replicas, min(self.config.max_replicas, decided)))
