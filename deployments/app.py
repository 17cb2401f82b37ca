"""`import_path: deployments.app:build`, the only place where the three deployments meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.classifier import Classifier
from deployments.config.capacity import DEFAULTS
from deployments.model.files import refuse_faults
from deployments.model.hub import resolved
from deployments.model.load import fingerprint
from deployments.model.source import ModelNotFound, find_model
from deployments.postprocessor import Postprocessor
from deployments.settings import Settings
from deployments.tokenizer import Tokenizer


def build(args: dict[str, Any]) -> Application:
    """The application that `args:` of serve_config.yaml describes.

    Raises:
        pydantic.ValidationError: an unknown key or a wrong value; `rayclassify check` explains it.
        ModelNotFound: as `as_deployed`.
    """
    settings = as_deployed(Settings.model_validate(args))
    classifier = deployment("Classifier")(Classifier)
    postprocessor = deployment("Postprocessor")(Postprocessor)
    ingress = deployment("Tokenizer")(serve.ingress()(Tokenizer))
    application: Application = ingress.bind(
        settings, classifier.bind(settings), postprocessor.bind()
    )
    return application


def deployment(name: str) -> Any:
    """What makes a deployment of a class, under the name that `deployments:` of the YAML refers to;
    what stands there goes before DEFAULTS."""
    return serve.deployment(name=name, **DEFAULTS[name])


def as_deployed(settings: Settings) -> Settings:
    """With the model named by what it is now, so that a replica that starts next week gets the
    same: the commit of a hub's branch, the fingerprint of a directory.

    Raises:
        ModelNotFound: its files show that it can't be served, or nobody knows the commit.
    """
    model = settings.model
    try:
        source = find_model(model.id)
    except ModelNotFound:
        return settings  # not on this node, which only builds; replicas say what they miss
    if Path(source).is_dir() and settings.engine.name != "none":
        # Before anything that runs is touched: a replica would find it after the others are new.
        refuse_faults(model)
    model = resolved(model)
    found = model.fingerprint or fingerprint(model)
    return settings.model_copy(update={"model": model.model_copy(update={"fingerprint": found})})
