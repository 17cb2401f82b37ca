"""`rayclassify check --prove`: the model is loaded and held to transformers' own, without Ray."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from deployments.model.certificate import Certificate
    from deployments.settings import Settings


def prove_models(
    config: dict[str, Any], verbose: bool = False
) -> tuple[list[Certificate], list[str]]:
    """A certificate of each of our applications' models, and why there is none of the others.

    The config is one that `check` finds nothing wrong with.
    """
    from deployments.launch.plan import our_settings
    from deployments.settings import PARTS

    certificates, refusals = [], []
    with contextlib.nullcontext() if verbose else _quiet():
        for settings, path in our_settings(config):
            models = {"": settings, **{f".{p}": one for p in PARTS if (one := settings.of(p))}}
            for place, own in models.items():
                if own.engine.name == "none":
                    continue
                try:
                    certificates.append(_proven(own))
                except Refused as exc:
                    refusals.append(f"{path}{place}.model: {exc}")
    return certificates, refusals


class Refused(Exception):
    """This model would not be served, or not with transformers' answers."""


def _proven(settings: Settings) -> Certificate:
    import transformers  # noqa: F401 - the parts are then read in this process, as quietly

    from deployments.engines.loaded import REFUSALS, load
    from deployments.engines.machine import cpu_count
    from deployments.engines.parity import MAX_DRIFT
    from deployments.engines.proof import measured_drift
    from deployments.model.certificate import certificate
    from deployments.pipeline.batcher import ModelThread

    thread = ModelThread()
    started = time.monotonic()
    try:
        num_threads = settings.engine.num_threads or cpu_count()
        loaded = thread.wait_for(lambda: load(settings, num_threads))
        drift = thread.wait_for(lambda: measured_drift(settings.model, loaded))
    except REFUSALS as exc:
        raise Refused(str(exc)) from None
    finally:
        thread.close()
    found = certificate(loaded.parts, loaded.engine.info()).with_drift(drift)
    # max_logit_drift is what the choice of an engine is held to.
    limit = max(MAX_DRIFT.get(found.dtype, 0.0), settings.engine.max_logit_drift)
    if not drift <= limit:
        raise Refused(
            f"the model's logits differ from transformers' own by {drift:.2g} per unit of the "
            f"largest; {found.engine} in {found.dtype} may differ by {limit:g}. Set "
            "args.engine.dtype: float32, and tell us of the model if that doesn't help."
        )
    typer.echo(f"proven in {time.monotonic() - started:.0f} s", err=True)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries speak at length of what they load; our refusals say what matters."""
    from transformers.utils import logging as theirs

    ours = logging.getLogger("deployments")
    theirs_before, ours_before = theirs.get_verbosity(), ours.level
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.set_verbosity(theirs_before)
        theirs.enable_progress_bar()
        ours.setLevel(ours_before)
