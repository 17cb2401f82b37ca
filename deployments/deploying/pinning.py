"""What a model was when it was deployed, in the application's args: its commit, its fingerprint.

So a later replica loads the same, and a deploy of the same file after its model was changed is an
update to Serve, which compares args and nothing else.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from deployments.config.keys import BUILDER
from deployments.deploying.merging import CannotDeploy
from deployments.model.hub import resolved
from deployments.model.source import ModelNotFound, find_model
from deployments.settings import PARTS, ModelSettings, Settings

FINGERPRINT = "fingerprint"


def pinned(app: dict[str, Any]) -> dict[str, Any]:
    """The application with each `revision` a commit, and the fingerprint of each directory: of
    `args.model`, and of the models of a cascade and a shadow.

    Raises:
        CannotDeploy: the hub does not tell the commit, or the directory is not what args name.
    """
    if app.get("import_path") != BUILDER:
        return app
    settings = Settings.model_validate(app.get("args") or {})
    if settings.engine.name == "none":
        return app
    app = copy.deepcopy(app)
    if changes := _changes(settings.model, "args.model"):
        args = app["args"] = app.get("args") or {}
        args["model"] = {**(args.get("model") or {}), **changes}
    for part in PARTS:
        own = settings.of(part)
        if own is not None and (changes := _changes(own.model, f"args.{part}.model")):
            app["args"][part]["model"] |= changes
    return app


def _changes(settings: ModelSettings, place: str) -> dict[str, str]:
    """What is to stand in the config beside the model's id. Raises CannotDeploy."""
    try:
        model = resolved(settings)
        found = fingerprint(model)
    except ModelNotFound as exc:
        raise CannotDeploy(str(exc)) from None
    named = settings.fingerprint
    if named and found and named != found:
        raise CannotDeploy(
            f"the files in {settings.id!r} have the fingerprint {found[:12]}, and "
            f"{place}.fingerprint asks for {named[:12]}: they were changed since. Put the old "
            "files back, or take the fingerprint out of the config to serve the new ones."
        )
    changes: dict[str, str] = {}
    if model.revision != settings.revision and model.revision is not None:
        changes["revision"] = model.revision
    if found is not None:
        changes[FINGERPRINT] = found
    return changes


def changed_since(app: dict[str, Any]) -> bool:
    """Whether a model's directory is here and not what it was when this config served."""
    if app.get("import_path") != BUILDER:
        return False
    args = app.get("args") or {}
    models = [args.get("model"), *((args.get(part) or {}).get("model") for part in PARTS)]
    return any(_changed_since(model or {}) for model in models)


def _changed_since(model: dict[str, Any]) -> bool:
    named = model.get(FINGERPRINT)
    if not named:
        return False
    try:
        found = fingerprint(ModelSettings.model_validate(model))
    except (ModelNotFound, ValueError):
        return True
    return found is not None and found != named


def fingerprint(model: ModelSettings) -> str | None:
    """Of the files of a model's directory; None for a hub id, and where the directory is not here.

    Raises:
        ModelNotFound: the id names a directory that is nowhere.
    """
    from deployments.model.load import fingerprint

    return fingerprint(model) if Path(find_model(model.id)).is_dir() else None


def shown_model(app: dict[str, Any] | None) -> str:
    """What a config serves in a few words: its model, commit and fingerprint, the long ones cut."""
    app = app or {}
    if app.get("import_path") != BUILDER:
        return str(app.get("import_path"))
    args = app.get("args") or {}
    if (args.get("engine") or {}).get("name") == "none":
        return "no model"
    model = args.get("model") or {}
    parts = [str(model.get("id") or ModelSettings().id)]
    if revision := model.get("revision"):
        parts.append(f"at {str(revision)[:12]}")
    if named := model.get(FINGERPRINT):
        parts.append(f"(fingerprint {str(named)[:12]})")
    return " ".join(parts)
