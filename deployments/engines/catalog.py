"""Which engines there are to choose from, on this device and with what is installed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from deployments import installing
from deployments.engines.base import Engine, EngineUnavailable
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

EXTRAS = {"openvino": ("openvino",)}
"""The extra of our package that brings an engine → the modules that it needs."""

_CLASSES = {
    "torch": ("torch_engine", "TorchEngine"),
    "openvino": ("openvino", "OpenVinoEngine"),
}

EXACTNESS = ("float32", "float16", "bfloat16", "int8")
"""Types by how little they round, the most exact first."""

_ON_GPU = (Candidate("torch", "bfloat16"), Candidate("torch", "float16"), REFERENCE)
_ON_MPS = (Candidate("torch", "float16"), REFERENCE)
# The likely fastest first: what a slow machine has no time to measure is then no great loss.
_ON_CPU = (
    REFERENCE,
    Candidate("openvino", "int8"),
    Candidate("torch", "int8"),
    Candidate("openvino", "bfloat16"),
    Candidate("torch", "bfloat16"),
    Candidate("openvino", "float32"),
)


def installed() -> frozenset[str]:
    """Engines whose packages are here."""
    return frozenset({"torch"}) | {
        name for name, modules in EXTRAS.items() if all(map(find_spec, modules))
    }


def fitting(
    settings: EngineSettings, device: str, has_bfloat16: bool, engines: Collection[str]
) -> list[Candidate]:
    """Candidates that fit what the settings fix. device: cpu, cuda or mps.

    A pair that the settings fix wholly is its own and only candidate, sensible or not.

    Raises:
        EngineUnavailable: nothing here fits the settings.
    """
    name, dtype = settings.name, settings.dtype
    if name not in {"auto", *engines}:
        raise EngineUnavailable(
            f"args.engine.name is {name}, which is not installed. "
            f"Set name: auto, or install it: {installing(name)}."
        )
    if "auto" not in {name, dtype}:
        return [Candidate(name, dtype)]
    known = {"cuda": _ON_GPU, "mps": _ON_MPS}.get(device, _ON_CPU)
    found = [
        candidate
        for candidate in known
        if candidate.name in engines
        and name in {"auto", candidate.name}
        and dtype in {"auto", candidate.dtype}
        # A CPU without it emulates it, slower than float32.
        and (has_bfloat16 or candidate.dtype != "bfloat16")
    ]
    if not found and dtype != "auto" and name in {"auto", "torch"}:
        return [Candidate("torch", dtype)]  # asked for by name, be it slow
    if not found:
        raise EngineUnavailable(
            f"args.engine names {name}, {dtype} and device {device}, which no engine here offers. "
            "Set name: auto or dtype: auto."
        )
    return found


def candidates(settings: EngineSettings) -> list[Candidate]:
    """`fitting` for this machine.

    Raises:
        EngineUnavailable: as `fitting`.
        ValueError: torch does not see the device that was named.
    """
    # torch takes seconds to import, and a replica whose engine is known needs none of this.
    from deployments.engines.hardware import cpu_has_bfloat16, pick_device

    device = pick_device(settings.device).type
    return fitting(settings, device, device != "cpu" or cpu_has_bfloat16(), installed())


def make(
    candidate: Candidate, model: ModelSettings, settings: EngineSettings, num_threads: int
) -> Engine:
    """The candidate's engine, not loaded yet."""
    settings = settings.model_copy(update={"name": candidate.name, "dtype": candidate.dtype})
    # Imported here, as each brings a library that takes seconds and may not be installed.
    module, name = _CLASSES[candidate.name]
    with step("imports"):
        made = getattr(import_module(f"{__package__}.{module}"), name)
    engine: Engine = made(model, settings, num_threads)
    return engine
