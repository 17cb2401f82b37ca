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
from deployments.settings import ModelSettings, Settings

FINGERPRINT = "fingerprint"


def pinned(app: dict[str, Any]) -> dict[str, Any]:
    """The application with `args.model.revision` a commit, and the fingerprint of a directory.

    Raises:
        CannotDeploy: the hub does not tell the commit, or the directory is not what args name.
    """
    if app.get("import_path") != BUILDER:
        return app
    settings = Settings.model_validate(app.get("args") or {})
    if settings.engine.name == "none":
        return app
    try:
        model = resolved(settings.model)
        found = fingerprint(model)
    except ModelNotFound as exc:
        raise CannotDeploy(str(exc)) from None
    named = settings.model.fingerprint
    if named and found and named != found:
        raise CannotDeploy(
            f"the files in {settings.model.id!r} have the fingerprint {found[:12]}, and "
            f"args.model.fingerprint asks for {named[:12]}: they were changed since. Put the old "
            "files back, or take the fingerprint out of the config to serve the new ones."
        )
    app = copy.deepcopy(app)
    changes: dict[str, str] = {}
    if model.revision != settings.model.revision and model.revision is not None:
        changes["revision"] = model.revision
    if found is not None:
        changes[FINGERPRINT] = found
    if changes:
        args = app["args"] = app.get("args") or {}
        args["model"] = {**(args.get("model") or {}), **changes}
    return app


def changed_since(app: dict[str, Any]) -> bool:
    """Whether the model's directory is here and not what it was when this config served."""
    model = (app.get("args") or {}).get("model") or {}
    named = model.get(FINGERPRINT)
    if not named or app.get("import_path") != BUILDER:
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
