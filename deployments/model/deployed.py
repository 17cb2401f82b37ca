"""Settings as they are deployed: whoever starts later loads the model that the first one loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deployments.model.config_json import labels_of, problem_type_of
from deployments.model.files import refuse_faults
from deployments.model.hub import resolved
from deployments.model.load import fingerprint
from deployments.model.source import ModelNotFound, ModelRefused, find_model, read_config
from deployments.pipeline.tasks.text_classification import SINGLE_LABEL
from deployments.settings import PARTS, ModelSettings, Part, Settings


def as_deployed(settings: Settings) -> Settings:
    """With each model named by what it is now, so that a replica or an actor that starts later
    gets the same: the commit of a hub's branch, the fingerprint of a directory.

    Raises:
        ModelNotFound: its files show that it can't be served, or nobody knows the commit; or two of
            the models have other labels.
    """
    refuse_other_labels(settings)
    found: dict[str, Any] = {"model": _named(settings)}
    for part in PARTS:
        if (own := settings.of(part)) is not None:
            found[part] = getattr(settings, part).model_copy(update={"model": _named(own)})
    return settings.model_copy(update=found)


def _named(settings: Settings) -> ModelSettings:
    model = settings.model
    try:
        source = find_model(model.id)
    except ModelNotFound:
        return model  # not on this node, which only builds; who loads it says what is missing
    if Path(source).is_dir() and settings.engine.name != "none":
        # Before anything that runs is touched: a replica would find it after the others are new.
        refuse_faults(model)
    model = resolved(model)
    found = model.fingerprint or fingerprint(model)
    return model.model_copy(update={"fingerprint": found})


def refuse_other_labels(settings: Settings) -> None:
    """Raises ModelRefused: the models of an application can't answer in each other's place. What
    is not a directory here is compared by whoever loads it."""
    for part in PARTS:
        if (own := settings.of(part)) is not None:
            _refuse_other_labels(settings, own, part)


def _refuse_other_labels(settings: Settings, own: Settings, part: Part) -> None:
    """Raises ModelRefused: the part's model has other labels, or a cascade's no single one."""
    models = {"args.model": settings.model, f"args.{part}.model": own.model}
    labels, problems = {}, {}
    for place, model in models.items():
        try:
            there = Path(find_model(model.id)).is_dir()
        except ModelNotFound:
            return
        if not there:  # on the hub: whoever loads it compares
            return
        config = read_config(model)
        labels[place] = labels_of(config)
        problems[place] = problem_type_of(config, len(labels[place]))
    if len({frozenset(one) for one in labels.values()}) > 1:
        told = "; ".join(f"{place} has {', '.join(one)}" for place, one in labels.items())
        raise ModelRefused(f"the labels differ: {told}. Both models need the same names.")
    if part == "cascade" and (bad := [p for p, one in problems.items() if one != SINGLE_LABEL]):
        raise ModelRefused(
            f"{bad[0]} is a {problems[bad[0]]} model; a cascade needs models of one label a text. "
            "Take args.cascade away."
        )
