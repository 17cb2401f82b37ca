"""Strict check of a Serve YAML before anything is deployed.

Ray ignores misspelt keys and finds wrong values only on the cluster; this check names every one
of them, with its path and the cure, in about a second and without starting Ray.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Generator, Hashable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from deployments.config import crosscheck
from deployments.config.capacity import EXPLAINER
from deployments.config.keys import (
    BUILDER,
    Problem,
    join,
    models_in,
    nearest,
    unknown_keys,
    validation_problems,
)
from deployments.settings import PARTS, Settings
from deployments.user_config import USER_CONFIGS, ClassifierUserConfig

__all__ = ["BUILDER", "ConfigError", "Problem", "check_config", "load_config"]

Model = TypeVar("Model", bound=BaseModel)

_OUR_PACKAGE = ("deployments.", "deployments:")


class ConfigError(ValueError):
    """The file is no YAML mapping; the message is one line with file and line number."""


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a YAML file; duplicate keys, which YAML would let win silently, are an error."""
    try:
        document = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeyLoader)  # noqa: S506
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file. Name a Serve YAML; a checkout has serve_config.yaml."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}, line {line}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply; a Serve config has ten levels.") from None
    except ValueError as error:  # a value that only looks like a date, for one
        raise ConfigError(f"{path}: {error}. Put values that are text in quotes.") from None
    if not isinstance(document, dict):
        got = "nothing" if document is None else type(document).__name__
        raise ConfigError(f"{path}: holds {got}; a Serve config is a mapping of keys to values.")
    return document


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Deployment(_Shape):
    ray_actor_options: dict[str, Any] = {}


class _Application(_Shape):
    args: dict[str, Any] = {}
    deployments: list[_Deployment] = []


class _Config(_Shape):
    """What must be a mapping and what a list, or nothing further in can be looked at."""

    http_options: dict[str, Any] | None = None
    grpc_options: dict[str, Any] | None = None
    controller_options: dict[str, Any] | None = None
    applications: list[_Application]


def check_config(config: dict[str, Any]) -> list[Problem]:
    """Everything wrong in a Serve config, in the order it is found; empty if it can be deployed."""
    # Imported here: this takes a second, which importers of this module should not pay.
    from ray.serve.schema import ServeDeploySchema

    if problems := list(_validated(_Config, config, "", extra=None)):
        return problems
    config = copy.deepcopy(config)
    problems += crosscheck.take_out_replica_counts(config)
    # Ray's validators write into what they are given.
    problems += _validated(ServeDeploySchema, copy.deepcopy(config), "")
    problems += crosscheck.flags(config)
    problems += crosscheck.ports(config)
    problems += crosscheck.servicers(config)
    for index, app in enumerate(config["applications"]):
        path = join("applications", index)
        problems += crosscheck.routes(app, path)
        problems += _untyped(app, path)
        if (import_path := app.get("import_path")) == BUILDER:
            problems += _our_application(app, path, config)
        elif str(import_path).startswith(_OUR_PACKAGE):
            message = f"{import_path!r} is nothing to deploy; did you mean {BUILDER}?"
            problems.append(Problem(join(path, "import_path"), message))
    return _once(problems)


def _once(problems: list[Problem]) -> list[Problem]:
    """Without repeats: where two places say the same, the deeper path knows better."""

    def is_repeated(p: Problem) -> bool:
        inside = (f"{p.path}.", f"{p.path}[") if p.path else ""
        return any(
            q.message == p.message and q.path != p.path and q.path.startswith(inside)
            for q in problems
        )

    return [p for p in dict.fromkeys(problems) if not is_repeated(p)]


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if isinstance(key_node, yaml.ScalarNode) and key in seen:
                problem = f"duplicate key {key!r}, first on line {seen[key]}; keep one of the two"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.setdefault(str(key), line)
        return super().construct_mapping(node, deep)


def _validated(
    model: type[Model], data: Any, path: str, extra: Literal["forbid"] | None = "forbid"
) -> Generator[Problem, None, Model | None]:
    """What is wrong with `data`; returns it as a `model`, or None where it is none.

    Most of Ray's models ignore keys that they do not know, so a misspelt one would change nothing
    and say nothing; `extra` forbids them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray deprecates metrics_interval_s for dead code
            return model.model_validate(data, extra=extra)
    except ValidationError as error:
        yield from validation_problems(error, data, model, path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        # Policies and routers are imported by name when their config is built.
        yield Problem(path, f"Ray cannot use this: {error}")
    return None


def _untyped(app: dict[str, Any], path: str) -> Iterator[Problem]:
    """What Ray's schema takes as any dict, and what it reads as something known later."""
    from ray.runtime_env import RuntimeEnv
    from ray.serve.config import AutoscalingPolicy
    from ray.serve.schema import DeploymentSchema

    policies = [(join(path, "autoscaling_policy"), app.get("autoscaling_policy"))]
    runtime_envs = [(join(path, "runtime_env"), app.get("runtime_env"))]
    seen: set[str] = set()
    for number, deployment in enumerate(app.get("deployments", [])):
        where = join(path, "deployments", number)
        if isinstance(name := deployment.get("name"), str):
            if name in seen:
                yield Problem(join(where, "name"), f"{name} is declared twice; keep one of the two")
            seen.add(name)
        options = deployment.get("ray_actor_options", {})
        of_replicas = join(where, "ray_actor_options", "runtime_env")
        runtime_envs.append((of_replicas, options.get("runtime_env")))
        for key, field in DeploymentSchema.model_fields.items():
            models = models_in(field.annotation)
            if models and isinstance(data := deployment.get(key), dict):
                yield from _validated(models[0], data, join(where, key))
                if "__init__" in vars(models[0]):  # it forgets what is forbidden
                    yield from unknown_keys(data, models[0].model_fields, join(where, key))
        if isinstance(autoscaling := deployment.get("autoscaling_config"), dict):
            yield from crosscheck.windows(autoscaling, join(where, "autoscaling_config"))
            yield from crosscheck.policy(autoscaling, join(where, "autoscaling_config"))
            policies.append((join(where, "autoscaling_config.policy"), autoscaling.get("policy")))
    for where, policy in policies:
        yield from unknown_keys(policy, AutoscalingPolicy.model_fields, where)
    for where, runtime_env in runtime_envs:
        yield from unknown_keys(runtime_env, RuntimeEnv.known_fields, where)


def _our_application(app: dict[str, Any], path: str, config: dict[str, Any]) -> Iterator[Problem]:
    declared = {
        name: (number, deployment)
        for number, deployment in enumerate(app.get("deployments", []))
        if isinstance(name := deployment.get("name"), str)
    }
    of_part = {name: part for part, name in PARTS.items()}
    on = [name for part, name in PARTS.items() if _has_model(app, part)]
    live = USER_CONFIGS | dict.fromkeys(on, ClassifierUserConfig)
    explains = ((app.get("args") or {}).get("explain") or {}).get("enabled") is True
    for name, (number, deployment) in declared.items():
        where = join(path, "deployments", number)
        if name in live:
            yield from _user_config(live[name], deployment, join(where, "user_config"))
        elif name == EXPLAINER and explains:
            if deployment.get("user_config"):
                message = "the Explainer has no live settings; delete it"
                yield Problem(join(where, "user_config"), message)
        elif name == EXPLAINER:
            message = "Explainer runs where args.explain.enabled is true; set it, or delete this"
            yield Problem(join(where, "name"), message)
        elif name in of_part:
            wanted = f"args.{of_part[name]}.model"
            message = f"{name} runs {wanted}, which is not there; add it, or delete {name}"
            yield Problem(join(where, "name"), message)
        else:
            message = f"unknown deployment {name!r}; {nearest(name, live)}"
            yield Problem(join(where, "name"), message)
    for name in [n for n in live if n not in declared]:
        yield Problem(
            join(path, "deployments"),
            f"{name} is not declared, so it would be one replica that takes a whole CPU; add it",
        )
    args_path = join(path, "args")
    settings = yield from _validated(Settings, app.get("args", {}), args_path)
    if settings is None:
        return
    tokenizer = declared.get("Tokenizer")
    yield from crosscheck.limits(settings, args_path, config)
    yield from crosscheck.explanations(settings, args_path)
    if tokenizer:
        where = join(path, "deployments", tokenizer[0])
        yield from crosscheck.tokenizer_limits(settings, tokenizer[1], where, config)


def _has_model(app: dict[str, Any], part: str) -> bool:
    about = (app.get("args") or {}).get(part)
    return isinstance(about, dict) and about.get("model") is not None


def _user_config(
    model: type[BaseModel], deployment: dict[str, Any], path: str
) -> Iterator[Problem]:
    parsed = yield from _validated(model, deployment.get("user_config") or {}, path)
    if isinstance(parsed, ClassifierUserConfig) and parsed.max_queue_tokens < (
        batch := parsed.max_batch_tokens
    ):
        yield Problem(
            join(path, "max_queue_tokens"),
            f"{parsed.max_queue_tokens} tokens never fill a batch of max_batch_tokens, {batch}; "
            f"set it to a few times {batch}",
        )
