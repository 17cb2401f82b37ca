"""What is sent to Serve: this application changed, and everything else as it stands there.

Serve's PUT is the whole truth: what was deployed by config and is not named in it is deleted.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from deployments.config.keys import BUILDER
from deployments.deploying.serve_state import DELETING, DEPLOYING, AppState, read_applications

# Read when Serve starts, and never again.
_FIXED = ("http_options", "grpc_options")
_REDACTED = "<redacted>"
NUDGE_VARIABLE = "RAYCLASSIFY_DEPLOY"


class CannotDeploy(Exception):
    """Nothing was touched. The message says what stands in the way, and the cure."""


@dataclass(frozen=True, slots=True)
class Merged:
    """document: for Serve's PUT; app: our part of it; notes: what a person should know."""

    document: dict[str, Any]
    app: dict[str, Any]
    notes: tuple[str, ...]


def pick_application(config: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The one application of a file that is meant.

    Raises:
        CannotDeploy: there is none of that name, or several and no name.
    """
    apps = [app for app in config.get("applications") or [] if isinstance(app, dict)]
    names = ", ".join(str(app.get("name", "default")) for app in apps) or "none"
    if name is not None:
        named = [app for app in apps if app.get("name", "default") == name]
        if not named:
            raise CannotDeploy(f"the config has no application {name!r}. It has: {names}.")
        return named[0]
    ours = [app for app in apps if app.get("import_path") == BUILDER]
    meant = ours if len(ours) == 1 else apps
    if len(meant) != 1:
        raise CannotDeploy(f"the config has {len(apps)} applications: {names}. Name one by --app.")
    return meant[0]


def merged(config: dict[str, Any], app: dict[str, Any], details: dict[str, Any]) -> Merged:
    """`app`, of the file `config`, among all that Serve (`details`) has.

    Raises:
        CannotDeploy: Serve's PUT would harm something.
    """
    app = copy.deepcopy(app)
    name = str(app.setdefault("name", "default"))
    there = read_applications(details)
    if not details.get("controller_info"):
        whole = {**copy.deepcopy(config), "applications": [app]}
        return Merged(whole, app, ("no Serve runs there yet: this starts it",))
    notes = list(_fixed_options(config, details))
    if name in there and not there[name].by_config:
        raise CannotDeploy(
            f"application {name!r} was deployed by serve.run() in somebody's code: a deploy would "
            f"take its place, with no config to go back to. Take it away first with "
            f'serve.delete("{name}"), or give this one another name and route_prefix.'
        )
    _check_routes(app, details)
    if "logging_config" in config:
        # Of Serve as a whole; as Serve does where an application has none of its own.
        app.setdefault("logging_config", copy.deepcopy(config["logging_config"]))
    others = []
    for other in there.values():
        if other.name == name:
            continue
        if other.by_config and other.status != DELETING:
            others.append(_config_of(other))
        elif not other.by_config:
            notes.append(f"{other.name} was deployed by serve.run(), and stays as it is")
    if others:
        kept = ", ".join(str(other["name"]) for other in others)
        notes.append(f"left as they are: {kept}")
    document = {key: details[key] for key in (*_FIXED, "proxy_location") if details.get(key)}
    if details.get("target_capacity") is not None:
        document["target_capacity"] = details["target_capacity"]
    document["applications"] = [*others, app]
    return Merged(document, app, tuple(notes))


def under_way(app: AppState | None) -> bool:
    """Whether somebody's deploy of it has not ended yet."""
    return app is not None and app.status in {DEPLOYING, DELETING}


def nudged(merged: Merged, moment: str) -> Merged:
    """The same for users and new for Serve, which does nothing for args that it has seen, be it
    that they failed for a cause that is gone."""
    app = copy.deepcopy(merged.app)
    runtime_env = app.get("runtime_env") or {}
    variables = {**(runtime_env.get("env_vars") or {}), NUDGE_VARIABLE: moment}
    app["runtime_env"] = {**runtime_env, "env_vars": variables}
    others = [a for a in merged.document["applications"] if a["name"] != app["name"]]
    document = {**merged.document, "applications": [*others, app]}
    return Merged(document, app, merged.notes)


def nudge_of(app: dict[str, Any]) -> str | None:
    """What `nudged` has set in it, if it has."""
    variables = (app.get("runtime_env") or {}).get("env_vars") or {}
    moment: str | None = variables.get(NUDGE_VARIABLE)
    return moment


def without_nudge(app: dict[str, Any]) -> dict[str, Any]:
    """The config as its file has it."""
    app = copy.deepcopy(app)
    variables = (app.get("runtime_env") or {}).get("env_vars") or {}
    if variables.pop(NUDGE_VARIABLE, None) is not None and not variables:
        del app["runtime_env"]["env_vars"]
        if not app["runtime_env"]:
            del app["runtime_env"]
    return app


def _config_of(other: AppState) -> dict[str, Any]:
    if other.config is None:
        raise CannotDeploy(
            f"Serve does not tell the config of application {other.name!r} ({other.status}), and "
            "would delete it with this deploy. Try again in a minute; if that does not help, "
            "deploy all applications from one file with `serve deploy`."
        )
    if _REDACTED in json.dumps(other.config):
        raise CannotDeploy(
            f"the cluster hides the environment of application {other.name!r}, and this deploy "
            "would send it back without its values. Deploy all applications from one file with "
            "`serve deploy`."
        )
    return copy.deepcopy(other.config)


def _check_routes(app: dict[str, Any], details: dict[str, Any]) -> None:
    route = app.get("route_prefix", "/")
    for name, other in (details.get("applications") or {}).items():
        taken = other.get("route_prefix")
        if name != app["name"] and taken is not None and taken == route:
            raise CannotDeploy(
                f"application {name!r} has the route {route!r} already. Give {app['name']!r} "
                "another route_prefix, such as /classify."
            )


def _fixed_options(config: dict[str, Any], details: dict[str, Any]) -> list[str]:
    """What the file has other than what runs, and no deploy can change."""
    told = []
    asked = {f"{key}.{k}": v for key in _FIXED for k, v in (config.get(key) or {}).items()}
    has = {f"{key}.{k}": v for key in _FIXED for k, v in (details.get(key) or {}).items()}
    if "proxy_location" in config:
        asked["proxy_location"], has["proxy_location"] = (
            config["proxy_location"],
            details.get("proxy_location"),
        )
    for key, value in asked.items():
        if key in has and has[key] != value:
            told.append(
                f"{key} is {has[key]!r} there and {value!r} in the file: that changes only when "
                "Serve is started anew, and stays"
            )
    return told
