"""What quantization.json says: that a model may run in 8 bits, by its owner's own texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.model.config_json import said, shown
from deployments.model.files import read_optional
from deployments.model.source import ModelRefused
from deployments.settings import ModelSettings

FILE = "quantization.json"


@dataclass(frozen=True, slots=True)
class Quantized:
    """min_agreement: the share of texts, 0 to 1, whose label 8 bits must keep."""

    min_agreement: float


def quantized(settings: ModelSettings) -> Quantized | None:
    """None of a model that `rayclassify quantize` did not write.

    Raises:
        ModelRefused: the file is there, and says something else.
    """
    found = read_optional(FILE, settings)
    if found is None:
        return None
    dtype, share = (
        (found.get("dtype"), found.get("min_agreement")) if isinstance(found, Mapping) else (0, 0)
    )
    if dtype != "int8":
        raise _refused("dtype", dtype, '"int8"')
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise _refused("min_agreement", share, "a number from 0 to 1")
    return Quantized(float(share))


def _refused(key: str, value: object, wanted: str) -> ModelRefused:
    cure = "Quantize again, or delete the file."
    return ModelRefused(said(FILE, key, shown(value), wanted, cure))
