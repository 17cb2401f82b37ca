"""What Serve is told of our deployments where a config is silent."""

from __future__ import annotations

import copy
from typing import Any

from deployments.settings import PARTS

EXPLAINER = "Explainer"
"""The deployment that `args.explain` turns on. It need not stand in a config."""

_ALL: dict[str, Any] = {
    # Micro-batches for Classifier and Postprocessor, whose own queue counts tokens.
    "max_ongoing_requests": 512,
    # Of one caller: a second guard, where it floods one replica.
    "max_queued_requests": 4096,
    # A stopping replica looks this often whether it is idle.
    "graceful_shutdown_wait_loop_s": 1.0,
    # Above what a request may take, so that updates answer what was accepted.
    "graceful_shutdown_timeout_s": 60.0,
    # A dead replica is found within 5 s; three looks in vain, and a frozen one is replaced: 40 s.
    "health_check_period_s": 5.0,
    "health_check_timeout_s": 10.0,
    # Updates start new replicas before old ones stop.
    "max_surge_percent": 100,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "Tokenizer": {
        **_ALL,
        # Above args.limits.max_pending_texts, so that our own 429 comes before Serve's.
        "max_ongoing_requests": 10240,
        # That guard's answer; Serve's own is 503.
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
    },
    "Classifier": _ALL,
    **dict.fromkeys(PARTS.values(), _ALL),
    "Postprocessor": _ALL,
    EXPLAINER: {
        **_ALL,
        # One text is explained, one is there for when it is done.
        "max_ongoing_requests": 2,
        # Of one Tokenizer; what comes on top gets 429.
        "max_queued_requests": 8,
        "autoscaling_config": {
            "min_replicas": 0,
            "max_replicas": 1,
            "target_ongoing_requests": 2,
            "downscale_delay_s": 300.0,
        },
        # As a fraction of the chain's, so that it finds room on 2 cores: one thread, at a niceness.
        "ray_actor_options": {"num_cpus": 0.1},
    },
}
"""Deployment → its options; a config overrides what it names. Replicas and resources have no
default here, but for the Explainer: how many there may be is the config's to say."""


def with_explainer(app: dict[str, Any]) -> dict[str, Any]:
    """The application with the Explainer among its deployments, where it is on."""
    deployments = app.get("deployments") or []
    explain = (app.get("args") or {}).get("explain") or {}
    if not explain.get("enabled") or any(d.get("name") == EXPLAINER for d in deployments):
        return app
    own = {key: DEFAULTS[EXPLAINER][key] for key in ("autoscaling_config", "ray_actor_options")}
    return {**app, "deployments": [*deployments, {"name": EXPLAINER, **copy.deepcopy(own)}]}


def whole(deployment: dict[str, Any]) -> dict[str, Any]:
    """One of a config's `deployments`, with what is not said there."""
    return {**DEFAULTS.get(str(deployment.get("name")), {}), **deployment}
