"""What a look at this machine finds wrong with a config: files that are missing or wrong, and more
CPUs asked for than there are. In about a second, without torch and without starting Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployments.config.check import BUILDER
from deployments.config.keys import Problem, join
from deployments.model import files as model_files
from deployments.settings import Settings


def check_machine(config: dict[str, Any]) -> list[Problem]:
    """All problems of a config that `check_config` found nothing wrong with."""
    return [*check_files(config), *_cpus(config)]


def check_files(config: dict[str, Any]) -> list[Problem]:
    """Those of the files that it names."""
    return [
        problem for settings, path in our_settings(config) for problem in _files(settings, path)
    ]


def our_settings(config: dict[str, Any]) -> Iterator[tuple[Settings, str]]:
    """The settings of each of our applications, and the path of its `args`."""
    for index, app in enumerate(config.get("applications") or []):
        if app.get("import_path") != BUILDER:
            continue
        try:
            settings = Settings.model_validate(app.get("args") or {})
        except ValidationError:  # reported by check_config
            continue
        yield settings, f"applications[{index}].args"


def _files(settings: Settings, path: str) -> Iterator[Problem]:
    if settings.engine.name != "none":
        for fault in model_files.faults(settings.model):
            key = "model.revision" if fault.startswith("args.model.revision") else "model.id"
            yield Problem(join(path, key), fault)
    access, audit = settings.access, settings.audit
    for key, name, cure in (
        ("access.keys_file", access.keys_file, "make it with `rayclassify keys new`"),
        ("access.jwt_jwks", access.jwt_jwks, "write the JWKS there, or set an https URL"),
        ("audit.secret_file", audit.secret_file, "make it with `openssl rand -hex 32`"),
    ):
        if name is not None and "://" not in name and (problem := _unreadable(name)):
            yield Problem(join(path, key), f"{name!r} {problem}; {cure}, or correct the path")


def _unreadable(name: str) -> str | None:
    path = Path(name)
    if not path.is_file():
        return "is no file on this machine"
    return None if os.access(path, os.R_OK) else "can't be read by this user"


def _cpus(config: dict[str, Any]) -> Iterator[Problem]:
    from deployments.launch.environment import cluster_address
    from deployments.launch.plan import read_plan
    from deployments.launch.preflight import check_cpus, check_gpus

    plan = read_plan(config)
    if cluster_address() is not None or any(check_gpus(plan.num_gpus)):
        return  # it is for other machines than this one
    for finding in check_cpus(plan.num_cpus):
        yield Problem("applications[0].deployments", finding.message)
