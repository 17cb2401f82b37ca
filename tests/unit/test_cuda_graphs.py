"""CUDA graphs without a GPU: all but the graph itself, in whose place stands a plain call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packed import CASES, MAX_LENGTH, batch_of, runners
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deployments.engines import attention, cuda_graphs, graph_trial, parity
from deployments.engines.attention import BufferedSpans, LengthsUnknown, Spans
from deployments.engines.cuda_graphs import SIZES, TOKENS_PER_TEXT, GraphedRunner, NoGraphs, fits
from deployments.engines.forward import ids_of
from deployments.engines.ids import Ids
from deployments.engines.packed import filled_up
from deployments.engines.torch_engine import TorchEngine
from deployments.pipeline.types import Encoded
from deployments.settings import EngineSettings, ModelSettings

BOUND = parity.MAX_DRIFT["float32"]
FEW = (64, 192)
TIMED = (128, 512, 2_048)


def called_again(run: cuda_graphs.Run) -> cuda_graphs.Run:
    """In place of a graph: the function that would have been recorded."""
    return run


def ids_for(case: str) -> Ids:
    return ids_of(runners(case)[0].model, MAX_LENGTH)


@given(
    lengths=st.lists(st.integers(1, 512), min_size=1, max_size=140)
    | st.lists(st.integers(16, 40), min_size=1, max_size=100),
    longest=st.sampled_from([64, 150, 512]),
)
def test_what_fills_a_size_makes_its_tokens_and_texts_exactly(
    lengths: list[int], longest: int
) -> None:
    lengths = [min(length, longest) for length in lengths]
    batch = batch_of(lengths)
    n, tokens = len(lengths), sum(lengths)
    fitting = [size for size in SIZES if fits(n, tokens, size, longest)]
    for size in fitting:
        row = filled_up(batch, size // TOKENS_PER_TEXT - n, size - tokens)
        assert len(row) == size // TOKENS_PER_TEXT
        assert row.total_tokens == row.lengths.sum() == size
        assert row.lengths[:n].tolist() == lengths
        assert row.lengths.min() >= 1
        assert row.lengths.max() <= longest
    # Only a crowd of texts of a word or two is left out.
    if n == 1 or (min(lengths) >= TOKENS_PER_TEXT and tokens <= 15 / 16 * SIZES[-1]):
        assert fitting


def test_sizes_are_few_and_their_buffer_is_small() -> None:
    assert len(SIZES) == 16
    assert list(SIZES) == sorted(SIZES)
    assert all(size % TOKENS_PER_TEXT == 0 for size in SIZES)
    # From 512 tokens on the next is a quarter more at most.
    assert all(b <= 1.25 * a for a, b in pairwise(SIZES) if a >= 512)


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_pass_gives_the_plain_logits(case: str) -> None:
    plain = runners(case)[0]
    graphed = GraphedRunner(plain, MAX_LENGTH, called_again, FEW)
    assert graph_trial.check(graphed, ids_for(case), BOUND) < BOUND
    rng = np.random.default_rng(0)
    for seed in range(4):
        batch = batch_of(rng.integers(1, 90, rng.integers(1, 4)).tolist(), seed=seed)
        np.testing.assert_allclose(graphed(batch), plain(batch), atol=1e-4)


def test_token_types_reach_a_recorded_pass_and_stay_in_none() -> None:
    plain = runners("bert")[0]
    graphed = GraphedRunner(plain, MAX_LENGTH, called_again, FEW)
    typed = batch_of([5, 40, 33], token_types=True)
    plainly = Encoded(typed.input_ids, typed.lengths)
    for batch in (typed, plainly, typed):
        np.testing.assert_allclose(graphed(batch), plain(batch), atol=1e-5)
    assert np.abs(graphed(typed) - graphed(plainly)).max() > 1e-3


def test_a_batch_takes_the_smallest_size_that_holds_it_and_a_large_one_none() -> None:
    replayed: list[int] = []

    def counted(run: cuda_graphs.Run) -> cuda_graphs.Run:
        def again() -> torch.Tensor:
            logits = run()
            replayed.append(len(logits) * TOKENS_PER_TEXT)
            return logits

        return again

    graphed = GraphedRunner(runners("bert")[0], MAX_LENGTH, counted)
    assert graphed.sizes == list(SIZES)
    for lengths in ([5], [61], [62], [3] * 16, [112] * 16, [150] * 14, [2] * 128):
        assert graphed(batch_of(lengths)).shape == (len(lengths), 3)
    assert replayed == [64, 64, 128, 320, 2_048]
    graphed.keep(128)
    assert graphed.sizes == [64, 128]
    graphed(batch_of([112] * 4))
    assert len(replayed) == 5


@pytest.mark.parametrize(
    ("fault", "why"),
    [(RuntimeError("CUDA error"), "RuntimeError while"), (NoGraphs("too large"), "too large")],
)
def test_a_recording_that_fails_leaves_the_plain_runner(fault: Exception, why: str) -> None:
    def fails(run: cuda_graphs.Run) -> cuda_graphs.Run:
        run()
        raise fault

    plain = runners("bert")[0]
    run, remark = graph_trial.faster(plain, ids_for("bert"), BOUND, fails, TIMED)
    assert run is plain
    assert remark.startswith(f"No CUDA graphs: {why}")


def test_one_size_that_answers_otherwise_leaves_the_plain_runner() -> None:
    def stale(run: cuda_graphs.Run) -> cuda_graphs.Run:
        """What a pass of 32 texts reads is recorded, and not where it is read."""
        first = run()
        return lambda: first if len(first) == 32 else run()

    plain = runners("bert")[0]
    run, remark = graph_trial.faster(plain, ids_for("bert"), BOUND, stale, TIMED)
    assert run is plain
    assert remark.startswith("No CUDA graphs: logits of 512 tokens differ by ")


@pytest.mark.parametrize(
    ("took_s", "kept", "said"),
    [
        ([(1.0, 0.5), (2.0, 1.6), (4.0, 3.9)], [128, 512], "CUDA graphs up to 512 tokens (1 texts"),
        ([(1.0, 0.5), (2.0, 1.6), (4.0, 3.0)], [*TIMED], "CUDA graphs up to 2048 tokens (1 texts"),
        ([(1.0, 0.96)], None, "No CUDA graphs: they gain too little (1 texts 1.04× as fast)."),
        ([(1.0, 3.0)], None, "No CUDA graphs: they gain too little (1 texts 0.33× as fast)."),
    ],
)
def test_graphs_are_kept_up_to_the_size_at_which_they_gain(
    took_s: list[tuple[float, float]], kept: list[int] | None, said: str
) -> None:
    left = iter(took_s)

    def timed(runs: Sequence[Callable[[], object]]) -> list[float]:
        for run in runs:
            run()
        return list(next(left))

    plain = runners("bert")[0]
    ids = ids_for("bert")
    run, remark = graph_trial.faster(plain, ids, BOUND, called_again, TIMED, timed)
    assert remark.startswith(said)
    assert (run.sizes if isinstance(run, GraphedRunner) else None) == kept
    assert (run is plain) == (kept is None)
    assert next(left, None) is None  # what comes after one that doesn't gain is not timed


def test_runs_are_timed_in_turns() -> None:
    calls: list[str] = []
    took = graph_trial.seconds([lambda: calls.append("a"), lambda: calls.append("b")], turns=3)
    assert calls == ["a", "b"] * 5
    assert len(took) == 2


def test_a_model_of_very_short_texts_has_none() -> None:
    with pytest.raises(NoGraphs, match="reads 8 tokens, fewer than 64"):
        GraphedRunner(runners("bert")[0], 8, called_again)


def test_spans_in_a_buffer_are_the_same_spans() -> None:
    lengths = [7, 3, 3, 1]
    known = Spans(np.asarray(lengths, np.int32), torch.device("cpu"))
    buffered = BufferedSpans(torch.tensor([0, 7, 10, 13, 14], dtype=torch.int32), 9)
    assert buffered.n_texts == known.n_texts == 4
    assert buffered.starts.tolist() == known.starts.tolist()
    assert buffered.runs == known.runs
    assert buffered.one_each.tolist() == known.one_each.tolist()
    assert buffered.max_length == 9
    values = torch.randn(14, 5)
    torch.testing.assert_close(buffered.means(values), known.means(values))


def test_where_lengths_decide_about_calls_nothing_is_recorded() -> None:
    """MPNet, DeBERTa and float32; `meta` is a device that isn't the CPU."""
    spans = BufferedSpans(torch.zeros(3, dtype=torch.int32, device="meta"), 9)
    assert spans.starts.shape == (2,)
    with pytest.raises(LengthsUnknown, match="a call for each length"):
        _ = spans.runs


class Moves(TorchDispatchMode):
    """Operators whose tensors lie on two devices: a copy, for which a recording fails."""

    def __init__(self) -> None:
        super().__init__()
        self.between: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        if len({t.device.type for t in tensors}) > 1:
            self.between.append(str(func))
        return out


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_a_pass_on_another_device_asks_it_for_nothing(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`meta` stands for the GPU: it has shapes and no values, so that who reads one fails."""
    monkeypatch.setattr(attention, "_takes_varlen", lambda query: query.dtype is torch.bfloat16)
    plain = runners.__wrapped__(case)[0]
    plain.release()
    plain.model.to("meta", torch.bfloat16)
    plain.encoder.to("meta", torch.bfloat16)
    passes: list[cuda_graphs.Run] = []

    def kept(run: cuda_graphs.Run) -> cuda_graphs.Run:
        passes.append(run)
        return run

    GraphedRunner(plain, MAX_LENGTH, kept, FEW)
    moves = Moves()
    if case in ("mpnet", "deberta", "deberta-v2"):
        with pytest.raises(LengthsUnknown):
            passes[0]()
        return
    with moves:
        shapes = [tuple(run().shape) for run in passes]
    assert shapes == [(192 // TOKENS_PER_TEXT, 3), (64 // TOKENS_PER_TEXT, 3)]
    assert moves.between == []


def test_on_a_cpu_nothing_is_recorded(make_tiny_model: Callable[..., Path]) -> None:
    engine = TorchEngine(
        ModelSettings(id=str(make_tiny_model())),
        EngineSettings(device="cpu", dtype="float32"),
        num_threads=1,
    )
    engine.load()
    assert not isinstance(engine._run, GraphedRunner)
    assert not [remark for remark in engine.info().remarks if "CUDA" in remark]


@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=30))
def test_the_same_text_gets_the_same_logits_in_any_size(lengths: list[int]) -> None:
    plain = runners("roberta")[0]
    graphed = GraphedRunner(plain, MAX_LENGTH, called_again, (64, 512, 1_024))
    batch = batch_of(lengths)
    expected = plain(batch)
    for size in graphed.sizes:
        if fits(len(batch), batch.total_tokens, size, MAX_LENGTH):
            np.testing.assert_allclose(graphed.replayed(batch, size), expected, atol=1e-4)
