"""Settings as they are deployed: whoever starts later loads the model that the first one loaded."""

from __future__ import annotations

from pathlib import Path

from deployments.model.files import refuse_faults
from deployments.model.hub import resolved
from deployments.model.load import fingerprint
from deployments.model.source import ModelNotFound, find_model
from deployments.settings import Settings


def as_deployed(settings: Settings) -> Settings:
    """With the model named by what it is now, so that a replica or an actor that starts later
    gets the same: the commit of a hub's branch, the fingerprint of a directory.

    Raises:
        ModelNotFound: its files show that it can't be served, or nobody knows the commit.
    """
    model = settings.model
    try:
        source = find_model(model.id)
    except ModelNotFound:
        return settings  # not on this node, which only builds; who loads it says what is missing
    if Path(source).is_dir() and settings.engine.name != "none":
        # Before anything that runs is touched: a replica would find it after the others are new.
        refuse_faults(model)
    model = resolved(model)
    found = model.fingerprint or fingerprint(model)
    return settings.model_copy(update={"model": model.model_copy(update={"fingerprint": found})})
