"""Ways of running the model, all behind the `Engine` protocol."""

from deployments.core.engines.base import Engine
from deployments.settings import Settings


def make_engine(settings: Settings, num_threads: int) -> Engine:
    """The engine that `settings.engine.name` names; not loaded yet."""
    if settings.engine.name == "none":
        from deployments.core.engines.null import NullEngine

        return NullEngine()
    if "auto" in {settings.engine.name, settings.engine.dtype}:
        from deployments.core.engines.auto import AutoEngine

        return AutoEngine(settings.model, settings.engine, num_threads)
    from deployments.core.engines.catalog import Candidate, make

    named = Candidate(settings.engine.name, settings.engine.dtype)
    return make(named, settings.model, settings.engine, num_threads)


__all__ = ["Engine", "make_engine"]
