"""Numbers that Ray takes one by one and that hurt in production when they stand together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from deployments.config.capacity import DEFAULTS, whole
from deployments.config.keys import SERVICER, Problem, join, unknown_keys
from deployments.config.ray_inside import HA_PROXY, THROUGHPUT
from deployments.scaling.policy import POLICY, FollowWork
from deployments.settings import LimitSettings, Settings

_ENV_VARS = "controller_options.runtime_env.env_vars"


def take_out_replica_counts(config: dict[str, Any]) -> Iterator[Problem]:
    """num_replicas beside autoscaling_config; taken out, so that Ray does not say it again."""
    for index, app in enumerate(config.get("applications", [])):
        for number, deployment in enumerate(app.get("deployments", [])):
            count = deployment.get("num_replicas")
            if isinstance(count, int) and deployment.get("autoscaling_config") is not None:
                del deployment["num_replicas"]
                yield Problem(
                    f"applications[{index}].deployments[{number}].num_replicas",
                    f"{count} replicas and autoscaling_config exclude each other; "
                    "delete num_replicas, or delete autoscaling_config for a fixed count",
                )


def flags(config: dict[str, Any]) -> Iterator[Problem]:
    """Serve's flags: values that Ray takes for "off", and throughput without HAProxy."""
    env_vars: Any = config
    for key in ("controller_options", "runtime_env", "env_vars"):
        env_vars = env_vars.get(key) or {}
        if not isinstance(env_vars, dict):
            return  # reported already
    for flag in (HA_PROXY, THROUGHPUT):
        if isinstance(value := env_vars.get(flag, "0"), str) and value not in ("0", "1"):
            message = f'{value!r} counts as off: Ray knows "1" alone; write "1" or "0"'
            yield Problem(f"{_ENV_VARS}.{flag}", message)
    if env_vars.get(THROUGHPUT) == "1" and env_vars.get(HA_PROXY) != "1":
        yield Problem(
            f"{_ENV_VARS}.{THROUGHPUT}",
            "1 without HAProxy leaves one proxy, on the head node; "
            f'set {HA_PROXY}: "1" beside it, or take both away',
        )
    if env_vars.get(HA_PROXY) == "1" and (config.get("http_options") or {}).get("ssl_certfile"):
        yield Problem(
            "http_options.ssl_certfile",
            "HAProxy, as Serve sets it up, speaks no TLS to callers and none to replicas; take it "
            f'away and put TLS in front (docs/tls/haproxy.cfg), or set {HA_PROXY}: "0"',
        )


def ports(config: dict[str, Any]) -> Iterator[Problem]:
    """Ports that Ray's schema takes and that no socket has, or only one of the two."""
    numbers = {}
    for options, usual in (("http_options", 8000), ("grpc_options", 9000)):
        number = (config.get(options) or {}).get("port", usual)
        if isinstance(number, int) and not 1 <= number <= 65_535:
            told = f"{number} is no port; set it to 1 to 65535, as {usual}"
            yield Problem(f"{options}.port", told)
        numbers[options] = number
    if speaks_grpc(config) and numbers["grpc_options"] == numbers["http_options"]:
        told = f"{numbers['http_options']} is http_options.port too; set it to another, as 9000"
        yield Problem("grpc_options.port", told)


def speaks_grpc(config: dict[str, Any]) -> bool:
    """Whether Serve opens a port for gRPC."""
    return bool((config.get("grpc_options") or {}).get("grpc_servicer_functions"))


def servicers(config: dict[str, Any]) -> Iterator[Problem]:
    """Names that look like ours and are not, which replicas would find when they start."""
    named = (config.get("grpc_options") or {}).get("grpc_servicer_functions") or []
    for index, name in enumerate(named if isinstance(named, list) else ()):
        if str(name).startswith("deployments") and name != SERVICER:
            told = f"{name!r} is nothing that gRPC can call; did you mean {SERVICER}?"
            yield Problem(join("grpc_options.grpc_servicer_functions", index), told)


def routes(app: dict[str, Any], path: str) -> Iterator[Problem]:
    """A route that Ray's schema takes and that no request would ever match."""
    route = app.get("route_prefix", "/")
    if isinstance(route, str) and not re.fullmatch(r"/|(/[^/{}]+)+", route):
        yield Problem(
            join(path, "route_prefix"),
            f"{route!r} is no route: begin with /, and leave out a / at the end and braces; "
            "for example /classify",
        )


def windows(autoscaling: dict[str, Any], path: str) -> Iterator[Problem]:
    """Delays and windows that Ray takes, and that make replicas come and go needlessly."""
    from ray.serve.config import AutoscalingConfig

    names = ("look_back_period_s", "metrics_interval_s", "downscale_delay_s")
    defaults = {name: AutoscalingConfig.model_fields[name].default for name in names}
    values = defaults | {n: autoscaling[n] for n in names if n in autoscaling}
    if not all(isinstance(v, (int, float)) for v in values.values()):
        return  # reported already
    look_back, interval, down = (values[name] for name in names)
    if down < look_back:
        yield Problem(
            join(path, "downscale_delay_s"),
            f"{down:g} s is shorter than look_back_period_s, {look_back:g} s: replicas stop on "
            f"load that is still in the average; set it to {look_back:g} or more",
        )
    if look_back <= interval:
        yield Problem(
            join(path, "look_back_period_s"),
            f"{look_back:g} s must be longer than metrics_interval_s, {interval:g} s, or windows "
            "are empty; lengthen it or report more often",
        )


def policy(autoscaling: dict[str, Any], path: str) -> Iterator[Problem]:
    """What our policy is told, which Serve would find only when it deploys."""
    told = autoscaling.get("policy")
    if not isinstance(told, dict) or told.get("policy_function") != POLICY:
        return
    kwargs = told.get("policy_kwargs") or {}
    if not isinstance(kwargs, dict):
        return  # reported already
    where = join(path, "policy.policy_kwargs")
    known = [f.name for f in fields(FollowWork) if not f.name.startswith("_")]
    yield from unknown_keys(kwargs, known, where)
    fed_by = kwargs.get("fed_by")
    if fed_by is not None and fed_by not in [*DEFAULTS]:
        yield Problem(f"{where}.fed_by", f"no deployment is called {fed_by!r}; set it to Tokenizer")
    try:
        FollowWork(**{name: kwargs[name] for name in known if name in kwargs})
    except (TypeError, ValueError) as exc:
        yield Problem(where, str(exc))


def limits(settings: Settings, path: str, config: dict[str, Any]) -> Iterator[Problem]:
    """Limits of one request that contradict Serve's, or one another."""
    ours = settings.limits.request_timeout_s
    theirs = (config.get("http_options") or {}).get("request_timeout_s")
    if isinstance(theirs, (int, float)) and ours >= theirs:
        yield Problem(
            f"{path}.limits.request_timeout_s",
            f"{ours:g} s must be below http_options.request_timeout_s, {theirs:g} s, or Serve cuts "
            "requests off before they get our 408; lower it, or raise the one in http_options",
        )
    body, held = settings.limits.max_body_bytes, settings.limits.max_held_body_bytes
    if body > held:
        yield Problem(
            f"{path}.limits.max_held_body_bytes",
            f"{held} bytes are less than one body may have, max_body_bytes, {body}, so large ones "
            f"always get 429; set it to {body} or more",
        )
    batch, pending = settings.limits.max_batch_texts, settings.limits.max_pending_texts
    if batch > pending:
        yield Problem(
            f"{path}.limits.max_batch_texts",
            f"{batch} texts in one request never fit max_pending_texts, {pending}, so they always "
            f"get 429; set it to {pending} or less",
        )


def explanations(settings: Settings, path: str) -> Iterator[Problem]:
    """What `args.explain` asks for and can't have."""
    if not settings.explain.enabled:
        return
    if settings.engine.name == "none":
        message = "args.engine.name is none, so there is no model to explain; set it to false"
        yield Problem(f"{path}.explain.enabled", message)
    most, limit = settings.explain.max_s, settings.limits.request_timeout_s
    if most >= limit:
        yield Problem(
            f"{path}.explain.max_s",
            f"{most:g} s must be below args.limits.request_timeout_s, {limit:g} s, or callers get "
            "408 before the explanation is there; lower it",
        )


def longest_request_s(limits: LimitSettings, config: dict[str, Any]) -> float:
    """How long a request may take: its body, then its answer, if Serve does not end it before."""
    ours = limits.body_timeout_s + limits.request_timeout_s
    theirs = (config.get("http_options") or {}).get("request_timeout_s")
    return min(ours, float(theirs)) if isinstance(theirs, (int, float)) else ours


def tokenizer_limits(
    settings: Settings, deployment: dict[str, Any], path: str, config: dict[str, Any]
) -> Iterator[Problem]:
    """Limits of the ingress that contradict the limits of one request."""
    deployment = whole(deployment)
    limits = settings.limits
    request = longest_request_s(limits, config)
    shutdown = deployment.get("graceful_shutdown_timeout_s")
    if isinstance(shutdown, (int, float)) and shutdown < request:
        yield Problem(
            join(path, "graceful_shutdown_timeout_s"),
            f"{shutdown:g} s is shorter than a request may take, {request:g} s (body_timeout_s and "
            "request_timeout_s of args.limits), so updates kill requests that were accepted; set "
            f"it above {request:g}",
        )
    pending = limits.max_pending_texts
    ongoing = deployment.get("max_ongoing_requests")
    if isinstance(ongoing, int) and ongoing <= pending:
        yield Problem(
            join(path, "max_ongoing_requests"),
            f"{ongoing} must be above args.limits.max_pending_texts, {pending}, or requests wait "
            "in Serve's queue where our 429 cannot reach them; raise it",
        )
