"""Ways of running the model, all behind the `Engine` protocol."""

from deployments.core.engines.base import Engine
from deployments.settings import Settings


def make_engine(settings: Settings, num_threads: int) -> Engine:
    """The engine that `settings.engine.name` names; not loaded yet."""
    if settings.engine.name == "none":
        from deployments.core.engines.null import NullEngine

        return NullEngine()
    # Imported here, as torch takes seconds and only the classifier needs it.
    from deployments.core.engines.padded import PaddedEngine

    return PaddedEngine(settings.model, settings.engine, num_threads)


__all__ = ["Engine", "make_engine"]
