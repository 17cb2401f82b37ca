"""How much a text costs in floating point operations, and how many the machine can do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .models import Shape

# Rows of the matrix products: from what stays in the cache of a core up to a full batch.
_ROWS = (256, 1_024)
# Of a shared machine's moments some are slow: the fastest of so many counts.
_ROUNDS = 8


def flops(shape: Shape, lengths: Sequence[int] | np.ndarray) -> float:
    """Operations to classify texts of so many tokens, a multiplication and an addition counted as
    two. Matrix products only, attention included; nothing for padding, which is no work asked for.
    """
    n = np.asarray(lengths, np.float64)
    h, i = shape.hidden, shape.intermediate
    weights = 4 * h * h + 2 * h * i  # query, key, value, output; up, down
    attention = 2 * n * h  # scores, and the weighted sum of the values
    per_text = shape.layers * 2 * n * (weights + attention)
    head = 2 * (h * h + h * shape.labels)  # pooler and classifier, for the first token only
    return float((per_text + head).sum())


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product to measure a model against. size: (m, k, n) of [m, k] by [k, n]."""

    way: str
    size: tuple[int, int, int]
    run: Callable[[], Any]

    @property
    def flops(self) -> int:
        """Operations of one call."""
        return 2 * math.prod(self.size)


class Products:
    """The fastest product of a model's shapes, on each of some threads at once.

    Threads that share one product wait for the slowest of them, so on a shared machine that is
    less than it can do. precision: float32, bfloat16 or int8.
    """

    def __init__(self, shape: Shape, precision: str, num_threads: int) -> None:
        from deployments.engines.side_by_side import SideBySide

        self._num_threads = num_threads
        self._threads = SideBySide(num_threads)
        (self.product,) = self._threads(lambda one: _fastest(one, precision), [shape])

    def gflops(self, for_s: float) -> float:
        """1e9 operations a second of all threads together."""
        took_s = self._threads(
            lambda one: _sustained_s(one.run, for_s), [self.product] * self._num_threads
        )
        return sum(self.product.flops / each_s for each_s in took_s) / 1e9


def _fastest(shape: Shape, precision: str, budget_s: float = 3.0) -> Product:
    h, i = shape.hidden, shape.intermediate
    products = [
        Product(way, (m, k, n), run)
        for m in _ROWS
        for k, n in ((h, h), (h, i), (i, h))
        for way, run in _ways(precision, m, k, n).items()
    ]
    slice_s = budget_s / len(products) / _ROUNDS
    # Round by round, as the machine's own speed changes.
    rounds = [[_sustained_s(one.run, slice_s) for one in products] for _ in range(_ROUNDS)]
    return min(
        zip(products, map(min, zip(*rounds, strict=True)), strict=True),
        key=lambda found: found[1] / found[0].flops,
    )[0]


def _sustained_s(run: Callable[[], Any], for_s: float) -> float:
    """Seconds a call takes, as the mean over calls for `for_s` seconds, at least two."""
    import torch

    with torch.inference_mode():
        run()
        calls, started = 0, time.perf_counter()
        while calls < 2 or time.perf_counter() - started < for_s:
            run()
            calls += 1
        return (time.perf_counter() - started) / calls


def _ways(precision: str, m: int, k: int, n: int) -> dict[str, Callable[[], Any]]:
    """Every way torch has here to multiply [m, k] with the weights of a Linear(k, n)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    if precision == "int8":
        return {**_dynamic_int8(m, k, n), **_onednn_int8(m, k, n)}
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    x = torch.randn(m, k, generator=generator).to(dtype)
    weight = torch.randn(n, k, generator=generator).to(dtype)
    bias = torch.randn(n, generator=generator).to(dtype)
    ways: dict[str, Callable[[], Any]] = {
        "F.linear": lambda: torch.nn.functional.linear(x, weight, bias)
    }
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, m)
        prepacked = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")  # noqa: E731
        prepacked()  # type: ignore[no-untyped-call]
        ways["oneDNN, prepacked"] = prepacked
    except (RuntimeError, AttributeError, NotImplementedError):
        pass  # this build of torch has no oneDNN
    return ways


def _dynamic_int8(m: int, k: int, n: int) -> dict[str, Callable[[], Any]]:
    """Weights in int8, rows quantised in the call, as torch's dynamic quantisation does it."""
    import warnings

    import torch

    x = torch.randn(m, k, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
                torch.nn.Sequential(torch.nn.Linear(k, n)), {torch.nn.Linear}, torch.qint8
            )
        layer(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return {}
    return {"dynamic quantisation": lambda: layer(x)}


def _onednn_int8(m: int, k: int, n: int) -> dict[str, Callable[[], Any]]:
    """The product alone, of rows that are int8 already."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 255, (m, k), dtype=torch.uint8, generator=generator)
    weight = torch.randint(-127, 127, (n, k), dtype=torch.int8, generator=generator)
    scales, zeros, bias = torch.full((n,), 0.01), torch.zeros(n, dtype=torch.int32), torch.zeros(n)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, [m, k])
        tail: tuple[Any, ...] = (bias, 1.0, 0, torch.float32, "none", [], "")
        run = lambda: torch.ops.onednn.qlinear_pointwise(x, 0.01, 128, packed, scales, zeros, *tail)  # noqa: E731
        run()  # type: ignore[no-untyped-call]
    except (RuntimeError, AttributeError, NotImplementedError):
        return {}
    return {"oneDNN, int8 rows": run}
