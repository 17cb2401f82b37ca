"""`import_path: deployments.app:build`, the only place where the deployments meet."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from deployments.classifier import Classifier
from deployments.config.capacity import DEFAULTS, EXPLAINER
from deployments.explainer import Explainer
from deployments.model.deployed import as_deployed
from deployments.postprocessor import Postprocessor
from deployments.settings import PARTS, Settings
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
    beside = {
        part: deployment(name)(Classifier).bind(own)
        for part, name in PARTS.items()
        if (own := settings.of(part)) is not None
    }
    explainer = deployment(EXPLAINER)(Explainer) if settings.explain.enabled else None
    application: Application = ingress.bind(
        settings,
        classifier.bind(settings),
        postprocessor.bind(settings.tracing),
        beside,
        None if explainer is None else explainer.bind(settings),
    )
    return application


def deployment(name: str) -> Any:
    """What makes a deployment of a class, under the name that `deployments:` of the YAML refers to;
    what stands there goes before DEFAULTS."""
    return serve.deployment(name=name, **DEFAULTS[name])
