"""What this CPU or GPU reaches in the matrix products that BERT is made of."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

# A batch of tokens against the widest weights of a BERT-base layer.
_TOKENS, _IN, _OUT = 512, 768, 3072
_SECONDS = 0.4
_MIN_ROUNDS = 5


def peak_gflops(dtype: str, num_threads: int, device: str = "cpu") -> float | None:
    """10⁹ multiplications and additions a second, the best round; None where torch can't here.

    dtype: float32, float16, bfloat16 or int8. Changes torch's number of threads.
    """
    torch.set_num_threads(num_threads)
    try:
        fastest_s = _fastest_s(_product(dtype, device), device)
    except (RuntimeError, AttributeError, NotImplementedError):
        return None
    return 2 * _TOKENS * _IN * _OUT / fastest_s / 1e9


def _product(dtype: str, device: str) -> Callable[[], torch.Tensor]:
    if dtype == "int8":
        tokens = torch.randint(-127, 128, (_TOKENS, _IN), dtype=torch.int8, device=device)
        weights = torch.randint(-127, 128, (_IN, _OUT), dtype=torch.int8, device=device)
        return lambda: torch._int_mm(tokens, weights)
    kind = getattr(torch, dtype)
    left = torch.randn(_TOKENS, _IN, device=device).to(kind)
    right = torch.randn(_OUT, _IN, device=device).to(kind)
    return lambda: torch.nn.functional.linear(left, right)


def _fastest_s(product: Callable[[], torch.Tensor], device: str) -> float:
    fastest = float("inf")
    rounds, until = 0, time.perf_counter() + _SECONDS
    while rounds < _MIN_ROUNDS or time.perf_counter() < until:
        started = time.perf_counter()
        product()
        if device != "cpu":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - started)
        rounds += 1
    return fastest
