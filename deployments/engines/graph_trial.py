"""CUDA graphs on trial: held to the plain runner, timed beside it, and kept as far as they gain."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import numpy as np

from deployments.engines import parity
from deployments.engines.attention import LengthsUnknown
from deployments.engines.cuda_graphs import (
    SIZES,
    CudaGraphs,
    GraphedRunner,
    NoGraphs,
    Record,
    fits,
)
from deployments.engines.ids import Ids
from deployments.engines.packed import PackedRunner
from deployments.pipeline.types import Encoded

logger = logging.getLogger(__name__)

GAIN = 1.05
"""A graph must be this much faster than the plain pass."""
TEXTS = (1, 4, 16)
"""Texts of the batches that are timed."""
TEXT_TOKENS = 112
"""With what fills them up, so many texts of these make 128, 512 and 2,048 tokens."""
_TURNS = 9

Timed = Callable[[Sequence[Callable[[], object]]], list[float]]
"""Seconds that each takes."""


def seconds(runs: Sequence[Callable[[], object]], turns: int = _TURNS) -> list[float]:
    """The median of each, in turns, after two that warm up. Each must wait for its device."""
    took: list[list[float]] = [[] for _ in runs]
    for turn in range(turns + 2):
        for run, own in zip(runs, took, strict=True):
            began = time.perf_counter()
            run()
            if turn > 1:
                own.append(time.perf_counter() - began)
    return [median(own) for own in took]


def faster(
    plain: PackedRunner,
    ids: Ids,
    max_drift: float,
    record: Record | None = None,
    sizes: Sequence[int] = SIZES,
    timed: Timed = seconds,
) -> tuple[PackedRunner | GraphedRunner, str]:
    """The runner to take, and what was found out, as one remark.

    max_drift: from the plain runner's logits, as `parity.drift` counts it. record: None: by CUDA.
    timed: seconds of the plain pass and of the replay.
    """
    try:
        graphed = GraphedRunner(
            plain, ids.max_tokens, record or CudaGraphs(plain.model.device).record, sizes
        )
        check(graphed, ids, max_drift)
        up_to, gains = _worth(graphed, ids, timed)
    except (NoGraphs, LengthsUnknown) as exc:
        return plain, f"No CUDA graphs: {exc}."
    except Exception as exc:  # CUDA's errors have no class of their own
        logger.debug("CUDA graphs fail", exc_info=True)
        return plain, f"No CUDA graphs: {type(exc).__name__} while they were recorded or tried."
    if not up_to:
        return plain, f"No CUDA graphs: they gain too little ({gains})."
    graphed.keep(up_to)
    return graphed, f"CUDA graphs up to {up_to} tokens ({gains})."


def check(graphed: GraphedRunner, ids: Ids, max_drift: float) -> float:
    """Every size beside the plain runner, twice, each time after all others; the largest drift.

    Raises:
        NoGraphs: it is larger than `max_drift`.
    """
    furthest = 0.0
    for seed in (1, 2):
        for size in graphed.sizes:
            batch = mixed(ids, size, seed)
            drift = parity.drift(graphed.replayed(batch, size), graphed.plain(batch))
            if not drift <= max_drift:
                raise NoGraphs(f"logits of {size} tokens differ by {drift:.2g}")
            furthest = max(furthest, drift)
    return furthest


def mixed(ids: Ids, size: int, seed: int) -> Encoded:
    """Texts of many lengths, as many as fit."""
    rng = np.random.default_rng(seed * size)
    lengths: list[int] = [1]
    while True:
        length = int(rng.integers(1, min(ids.max_tokens, size // 2) + 1))
        if not fits(len(lengths) + 1, sum(lengths) + length, size, ids.max_tokens):
            return ids.texts(lengths, seed)
        lengths.append(length)


def _worth(graphed: GraphedRunner, ids: Ids, timed: Timed) -> tuple[int, str]:
    """The largest size at which graphs gain, as all timed before it; and the gains, written."""
    up_to, gains = 0, []
    for n in TEXTS:
        batch = ids.texts([min(TEXT_TOKENS, ids.max_tokens)] * n)
        size = graphed.size_of(batch)
        if size is None:
            break
        plain_s, graph_s = timed([partial(graphed.plain, batch), partial(graphed, batch)])
        gains.append(f"{n} texts {plain_s / graph_s:.2f}× as fast")
        if plain_s < GAIN * graph_s:
            break
        up_to = size
    return up_to, ", ".join(gains)
