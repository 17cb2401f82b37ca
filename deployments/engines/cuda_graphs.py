"""CUDA graphs of small packed batches: all launches of a pass recorded once, then replayed as one.

A small batch costs a GPU less time than its some hundred launches cost the CPU. A graph repeats
them with the same shapes and addresses, and nothing in it may wait for the device
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). So a batch is written into one
buffer, in one of few sizes, filled up with texts of nothing. Not run on a GPU yet: whatever fails
or is not faster leaves the plain runner.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import numpy as np
import torch

from deployments.engines import parity
from deployments.engines.attention import BufferedSpans, LengthsUnknown
from deployments.engines.ids import Ids
from deployments.engines.packed import PackedRunner, filled_up
from deployments.pipeline.types import Encoded, Float32

logger = logging.getLogger(__name__)

SIZES = (*range(64, 513, 64), 640, 768, 896, 1_024, 1_280, 1_536, 1_792, 2_048)
"""Tokens of a recorded pass. A GPU multiplies tiles of 64 tokens or more: less would save nothing.

Beyond the last, BERT-base keeps an H100 busy for as long as its launches take: about 1,000 tokens
a millisecond, and 200 launches of 5 µs. That is reckoned, not measured.
"""
# How many texts a size has room for. Half of that is a text of 32 tokens, a short sentence.
TOKENS_PER_TEXT = 16
# The bound of all graphs together. The largest needs 60 MB for BERT-large's activations (14 values
# of 2 bytes for each of its 1,024 x 2,048), which the others use again; and each its launches.
MAX_BYTES = 512 * 2**20
# Passes before one is recorded: libraries load, choose and allocate in their first.
WARM_UP = 3

GAIN = 1.05
"""A graph must be this much faster than the plain pass."""
TEXTS = (1, 4, 16)
"""Texts of the batches that are timed."""
TEXT_TOKENS = 112
"""With what fills them up, so many texts of these make 128, 512 and 2,048 tokens."""
_TURNS = 9

Run = Callable[[], torch.Tensor]
Record = Callable[[Run], Run]
"""Makes of a pass one that does the same again, on what then lies in its buffers."""

Timed = Callable[[Sequence[Callable[[], object]]], list[float]]
"""Seconds that each takes."""


class NoGraphs(Exception):
    """The plain runner stays. The message says why."""


def fits(n_texts: int, n_tokens: int, size: int, longest: int) -> bool:
    """Whether the rest of a size can be texts of nothing, each of 1 to `longest` tokens."""
    more, missing = size // TOKENS_PER_TEXT - n_texts, size - n_tokens
    return 0 < more <= missing <= more * longest


class CudaGraphs:
    """Records passes on one GPU, on a stream of its own and in one pool of memory.

    Raises:
        whatever CUDA raises.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()
        self._free_bytes = torch.cuda.mem_get_info(device)[0]

    def record(self, run: Run) -> Run:
        """A replay, whose tensor holds until the next one.

        Raises:
            NoGraphs: the graphs take more than `MAX_BYTES`.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        # On the stream that records: a library's handle may belong to its stream, as on ROCm.
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                run()
        current.wait_stream(self._stream)
        with (
            # A recording that fails leaves its own stream in place.
            torch.cuda.stream(current),
            # Another thread may serve another model meanwhile, and allocate.
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            logits = run()
        held_bytes = self._free_bytes - torch.cuda.mem_get_info(self._device)[0]
        if held_bytes > MAX_BYTES:
            raise NoGraphs(
                f"they take {held_bytes >> 20} MiB, more than {MAX_BYTES >> 20}, or another "
                "process took them"
            )

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay


class GraphedRunner:
    """A `PackedRunner` whose small batches are replayed; the others, it runs as ever.

    longest: tokens that the model reads. record: what makes a replay of a pass.

    Raises:
        LengthsUnknown, NoGraphs, or whatever CUDA raises: it can't be recorded.
    """

    @torch.inference_mode()
    def __init__(
        self, plain: PackedRunner, longest: int, record: Record, sizes: Sequence[int] = SIZES
    ) -> None:
        if longest < min(sizes):
            raise NoGraphs(f"the model reads {longest} tokens, fewer than {min(sizes)}")
        self.plain = plain
        self._longest = longest
        device = plain.model.device
        # One copy a batch: ids, positions and types, then where each text begins and ends.
        values = 3 * max(sizes) + max(sizes) // TOKENS_PER_TEXT + 1
        self._staged = torch.zeros(values, dtype=torch.int32, pin_memory=device.type == "cuda")
        self._buffer = torch.zeros(values, dtype=torch.int32, device=device)
        self._replays: dict[int, Run] = {}
        # The largest first: what it frees, the others use again.
        for size in sorted(sizes, reverse=True):
            n = size // TOKENS_PER_TEXT
            self._write(filled_up(Encoded(*np.zeros((2, 0), np.int32)), n, size), size)
            self._replays[size] = record(partial(self._pass, size))

    @property
    def sizes(self) -> list[int]:
        """Tokens of the recorded passes, the smallest first."""
        return sorted(self._replays)

    def keep(self, up_to: int) -> None:
        """Forgets the passes of more tokens."""
        self._replays = {size: run for size, run in self._replays.items() if size <= up_to}

    def size_of(self, batch: Encoded) -> int | None:
        """The smallest size that the batch fits; None: it runs plainly."""
        n, tokens = len(batch), batch.total_tokens
        return next((s for s in self.sizes if fits(n, tokens, s, self._longest)), None)

    def __call__(self, batch: Encoded) -> Float32:
        """Logits float32 [n, labels], in the batch's order."""
        size = self.size_of(batch)
        return self.plain(batch) if size is None else self.replayed(batch, size)

    @torch.inference_mode()
    def replayed(self, batch: Encoded, size: int) -> Float32:
        """As a call, in a size that it fits."""
        n = len(batch)
        row = filled_up(batch, size // TOKENS_PER_TEXT - n, size - batch.total_tokens)
        self._write(row, size)
        logits: Float32 = self._replays[size]()[:n].cpu().numpy()
        return logits

    def _write(self, row: Encoded, size: int) -> None:
        """The copy is over when the logits are read, so the next batch may be staged then."""
        staged, end = self._staged.numpy(), 3 * size + len(row) + 1
        staged[:size] = row.input_ids
        staged[size : 2 * size] = self.plain.positions(row)
        staged[2 * size : 3 * size] = 0 if row.token_type_ids is None else row.token_type_ids
        staged[3 * size] = 0
        np.cumsum(row.lengths, out=staged[3 * size + 1 : end])
        self._buffer[:end].copy_(self._staged[:end], non_blocking=True)

    def _pass(self, size: int) -> torch.Tensor:
        """Logits float32 [texts, labels] of what lies in the buffer."""
        ids, positions, types = self._buffer[: 3 * size].view(3, 1, size).long().unbind()
        ends = 3 * size + size // TOKENS_PER_TEXT + 1
        # The kernel's grid is recorded too, so it is made for the longest that may come.
        spans = BufferedSpans(self._buffer[3 * size : ends], min(size, self._longest))
        takes_types = self.plain.takes_token_types
        return self.plain.forward(ids, positions, types if takes_types else None, spans).float()


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
        logger.warning("CUDA graphs failed", exc_info=True)
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
