"""How fast engines were on other machines, by kind of CPU: what an extra would bring before it is
installed.

Each row was measured, and says where; a kind of CPU without a row is not known. `rayclassify
doctor --json` prints the figures from which a row is made.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownSpeeds:
    """texts_per_s: engine and dtype → texts a second, all in one run; where: machine and model."""

    where: str
    texts_per_s: dict[str, float]

    def best(self, name: str) -> tuple[str, float] | None:
        """The fastest of an engine's types and its speed."""
        found = {k: v for k, v in self.texts_per_s.items() if k.split()[0] == name}
        return max(found.items(), key=lambda item: item[1], default=None)


def cpu_kind(features: Collection[str]) -> str:
    """CPUs of one kind have the same instructions for matrix products, if not the same speed."""
    has = set(features)
    if has & {"amx_int8", "amx_bf16"}:
        return "AMX"
    if "avx512f" in has:
        parts = [("avx512_vnni", "VNNI"), ("avx512_bf16", "BF16")]
        return " + ".join(["AVX-512", *(label for name, label in parts if name in has)])
    if "avx2" in has:
        return "AVX2 + VNNI" if "avx_vnni" in has else "AVX2"
    if "asimd" in has:
        parts = [("i8mm", "I8MM"), ("bf16", "BF16")]
        return " + ".join(["Arm", *(label for name, label in parts if name in has)])
    return "other"


KNOWN: dict[str, KnownSpeeds] = {
    "AVX-512 + VNNI + BF16": KnownSpeeds(
        where="BERT-base, 256 Chinese reviews of 73 tokens on average, 2 cores of Zen 4",
        texts_per_s={
            "torch float32": 16.3,
            "torch bfloat16": 29.1,
            "torch int8": 46.9,
            "openvino float32": 14.4,
            "openvino bfloat16": 28.3,
            "openvino int8": 49.9,
        },
    ),
}
"""By `cpu_kind`. By `scripts/benchmark.py raw`, see docs/benchmark.md."""
