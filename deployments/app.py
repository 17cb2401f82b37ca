"""`import_path: deployments.app:build`, the only place where the three deployments meet."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from deployments.classifier import Classifier
from deployments.postprocessor import Postprocessor
from deployments.settings import Settings
from deployments.tokenizer import Tokenizer


def build(args: dict[str, Any]) -> Application:
    """The application that `args:` of serve_config.yaml describes.

    Raises:
        pydantic.ValidationError: an unknown key or a wrong value; `rayclassify check` explains it.
    """
    settings = Settings.model_validate(args)
    # The names that `deployments:` of the YAML refers to; capacity stands there, none here.
    classifier = serve.deployment(name="Classifier")(Classifier)
    postprocessor = serve.deployment(name="Postprocessor")(Postprocessor)
    ingress = serve.deployment(name="Tokenizer")(serve.ingress()(Tokenizer))
    application: Application = ingress.bind(
        settings, classifier.bind(settings), postprocessor.bind()
    )
    return application
