"""The English demo model: it answers, and its card says what it is."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open

from deployments.local import LocalClassifier

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo-en"


def test_it_tells_praise_from_blame() -> None:
    with LocalClassifier({"model": {"id": str(MODEL)}}) as classifier:
        praise, blame = classifier.classify(
            ["A moving, funny and beautifully acted film.", "Dull, overlong and badly written."]
        )
    assert (praise["label"], blame["label"]) == ("positive", "negative")


def test_the_card_counts_its_parameters() -> None:
    with safe_open(MODEL / "model.safetensors", "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    total = sum(map(math.prod, shapes))
    assert f"{total:,} parameters" in (MODEL / "README.md").read_text(encoding="utf-8")
