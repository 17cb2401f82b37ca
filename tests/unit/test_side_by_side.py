"""Rows side by side: the same answers, torch's threads as they were, the faster way found."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_packed import batch_of, runners

from deployments.engines.packed import _even_rows
from deployments.engines.side_by_side import Faster, SideBySide
from deployments.pipeline.types import Encoded


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    runners.cache_clear()  # those of another test have the number of threads that was set there
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "deberta-v2"])
def test_answers_are_those_of_shared_rows(kind: str, two_threads: None) -> None:
    packed, _ = runners(kind)
    rng = np.random.default_rng(3)
    for n in (1, 2, 3, 4, 9, 40):
        batch = batch_of(rng.integers(1, 100, n).tolist())
        together = packed._on_threads(batch, side_by_side=False)
        np.testing.assert_allclose(
            packed._on_threads(batch, side_by_side=True), together, atol=1e-4
        )
        np.testing.assert_allclose(packed(batch), together, atol=1e-4)
    assert torch.get_num_threads() == 2


def test_each_row_has_one_thread_of_torchs_and_its_caller_keeps_all(two_threads: None) -> None:
    side_by_side = SideBySide(2)
    seen: list[tuple[str, int]] = []
    together = threading.Barrier(2)

    def run(row: Encoded) -> torch.Tensor:
        together.wait(10)  # both threads run
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return torch.tensor(row.total_tokens)

    rows = [batch_of([n]) for n in (5, 7, 9, 11)]
    assert [int(one) for one in side_by_side(run, rows)] == [5, 7, 9, 11]
    assert {n for _, n in seen} == {1}
    assert len({name for name, _ in seen}) == 2
    assert torch.get_num_threads() == 2
    # Whoever starts later, too.
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2]


def test_an_error_is_raised_when_no_row_runs_any_more(two_threads: None) -> None:
    done: list[int] = []

    def run(row: Encoded) -> torch.Tensor:
        if row.total_tokens == 1:
            raise ValueError("this row")
        time.sleep(0.2)
        done.append(row.total_tokens)
        return torch.zeros(1)

    with pytest.raises(ValueError, match="this row"):
        SideBySide(2)(run, [batch_of([n]) for n in (1, 2, 3)])
    assert sorted(done) == [2, 3]


def test_a_single_thread_has_no_others() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        packed, _ = runners.__wrapped__("bert")  # made anew: it keeps the threads of its making
        packed(batch_of([5] * 20))
        assert packed._side_by_side is None
    finally:
        torch.set_num_threads(before)


@given(
    lengths=st.lists(st.integers(1, 600), min_size=1, max_size=200),
    n_threads=st.integers(1, 16),
    max_tokens=st.sampled_from([128, 512, 4_096]),
)
def test_rows_hold_each_text_once_and_are_about_equal(
    lengths: list[int], n_threads: int, max_tokens: int
) -> None:
    all_lengths = np.array(lengths, np.int32)
    order, rows = _even_rows(all_lengths, max_tokens, n_threads)
    assert sorted(i for row in rows for i in order[row].tolist()) == list(range(len(lengths)))
    tokens = [int(all_lengths[order[row]].sum()) for row in rows]
    wanted = n_threads * -(-sum(lengths) // (n_threads * max_tokens))
    # Each text went to the row with the fewest tokens.
    assert len(rows) == min(wanted, len(lengths))
    assert max(tokens) - min(tokens) <= max(lengths)


def test_short_texts_fill_up_the_row_beside_a_long_one() -> None:
    lengths = np.array([40, 100, 60, 80], np.int32)
    order, rows = _even_rows(lengths, 512, 2)
    assert [lengths[order[row]].tolist() for row in rows] == [[100, 40], [80, 60]]


def ran(faster: Faster, seconds: dict[bool, float], n: int) -> list[bool]:
    """The ways of n batches of 100 tokens that take so long each way."""
    ways = []
    for _ in range(n):
        way = faster.choose(100)
        faster.took(way, seconds[way], 100)
        ways.append(way)
    return ways


@pytest.mark.parametrize("better", [True, False])
def test_the_faster_way_is_taken_and_the_other_tried_for_a_fiftieth_of_the_time(
    better: bool,
) -> None:
    seconds = {better: 0.01, not better: 0.4}  # forty times as slow, beside a busy neighbour
    ways = ran(Faster(), seconds, 5_000)
    assert ways[:6] == [True, False] * 3
    later = ways[6:]
    spent = {way: seconds[way] * later.count(way) for way in (True, False)}
    assert later.count(not better) > 0
    assert spent[not better] < 0.03 * sum(spent.values())


def test_a_first_batch_that_compiles_decides_nothing() -> None:
    faster = Faster()
    seconds = iter([0.9, 0.015, 0.01, 0.015, 0.01, 0.012])
    for _ in range(6):
        way = faster.choose(100)
        faster.took(way, next(seconds), 100)
    assert faster.choose(100)


def test_it_turns_where_the_machine_does() -> None:
    faster = Faster()
    ran(faster, {True: 0.01, False: 0.015}, 500)
    ways = ran(faster, {True: 0.03, False: 0.015}, 2_000)
    assert ways[-100:].count(False) > 90
