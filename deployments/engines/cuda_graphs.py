"""CUDA graphs of small packed batches: all launches of a pass recorded once, then replayed as one.

A small batch costs a GPU less time than its some hundred launches cost the CPU. A graph repeats
them with the same shapes and addresses, and nothing in it may wait for the device
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). So a batch is written into one
buffer, in one of few sizes, filled up with texts of nothing. Not run on a GPU yet: graph_trial.py
decides whether one is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from deployments.engines.attention import BufferedSpans
from deployments.engines.packed import PackedRunner, filled_up
from deployments.pipeline.types import Encoded, Float32

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

Run = Callable[[], torch.Tensor]
Record = Callable[[Run], Run]
"""Makes of a pass one that does the same again, on what then lies in its buffers."""


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
