"""Which ways of running a model there are to choose from on this device, and how each is made."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from deployments.engines.base import Engine
from deployments.engines.kept import Store
from deployments.model.steps import step
from deployments.settings import EngineSettings, ModelSettings


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of running the model, as `EngineSettings` names it."""

    name: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}"


REFERENCE = Candidate("torch", "float32")
"""What every other engine must agree with, and what runs where none does."""

_CLASSES = {"torch": ("torch_engine", "TorchEngine")}

EXACTNESS = ("float32", "float16", "bfloat16", "int8")
"""Types by how little they round, the most exact first."""

_BY_DEVICE = {
    "cuda": (Candidate("torch", "bfloat16"), Candidate("torch", "float16"), REFERENCE),
    "mps": (Candidate("torch", "float16"), REFERENCE),
}
_ON_CPU = (REFERENCE, Candidate("torch", "int8"), Candidate("torch", "bfloat16"))


def fitting(settings: EngineSettings, device: str, has_bfloat16: bool) -> list[Candidate]:
    """Candidates that fit what the settings fix. device: cpu, cuda or mps.

    A pair that the settings fix wholly is its own and only candidate, sensible or not.
    """
    name, dtype = settings.name, settings.dtype
    if "auto" not in {name, dtype}:
        return [Candidate(name, dtype)]
    found = [
        candidate
        for candidate in _BY_DEVICE.get(device, _ON_CPU)
        if name in {"auto", candidate.name}
        and dtype in {"auto", candidate.dtype}
        # A CPU without it emulates it, slower than float32.
        and (has_bfloat16 or candidate.dtype != "bfloat16")
    ]
    return found or [Candidate("torch", dtype)]  # asked for by name, be it slow


def candidates(settings: EngineSettings) -> list[Candidate]:
    """`fitting` for this machine.

    Raises:
        ValueError: torch does not see the device that was named.
    """
    # torch takes seconds to import, and a replica whose engine is known needs none of this.
    from deployments.engines.hardware import cpu_has_bfloat16, pick_device

    device = pick_device(settings.device).type
    return fitting(settings, device, device != "cpu" or cpu_has_bfloat16())


def make(
    candidate: Candidate,
    model: ModelSettings,
    settings: EngineSettings,
    num_threads: int,
    row_tokens: int | None = None,
    store: Store | None = None,
) -> Engine:
    """The candidate's engine, not loaded yet.

    row_tokens: see `Engine`; None: its own. store: where the application keeps what is proven.
    """
    settings = settings.model_copy(update={"name": candidate.name, "dtype": candidate.dtype})
    # Imported here, as each brings a library that takes seconds and may not be installed.
    module, name = _CLASSES[candidate.name]
    with step("imports"):
        made = getattr(import_module(f"{__package__}.{module}"), name)
    engine: Engine = made(model, settings, num_threads, store)
    if row_tokens is not None:
        engine.row_tokens = row_tokens
    return engine
