"""Layers of the image, and the packages that fill them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from scripts.image.engine import Engine

# Inside the image: bytes of each distribution, by the files that its RECORD names.
_BY_PACKAGE = """
import importlib.metadata, json
print(json.dumps({
    one.metadata["Name"]: sum(
        path.stat().st_size
        for path in map(one.locate_file, one.files or ())
        if path.is_file()
    )
    for one in importlib.metadata.distributions()
}))
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes, not compressed. layers: oldest first, with the instruction that made each."""

    layers: list[tuple[str, int]]
    packages: dict[str, int]

    @property
    def image_bytes(self) -> int:
        # Not what `inspect` calls the size: docker's containerd store counts compressed layers.
        return sum(count for _, count in self.layers)


def sizes(engine: Engine, image: str) -> Sizes:
    """Raises EngineError."""
    history = engine.call("history", "--no-trunc", "--format={{.Size}}\t{{.CreatedBy}}", image)
    layers = []
    for line in reversed(history.splitlines()):
        size, _, made_by = line.partition("\t")
        if count := as_bytes(size):
            layers.append((made_by, count))
    packages = json.loads(engine.once(image, "python", "-c", _BY_PACKAGE))
    return Sizes(layers, packages)


def as_bytes(text: str) -> int:
    """`1.86GB`, as both engines print sizes, in bytes."""
    units = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    for unit, factor in units.items():
        if text.strip().endswith(unit):
            return round(float(text.strip().removesuffix(unit)) * factor)
    raise ValueError(f"{text!r} is no size that docker or podman print")
