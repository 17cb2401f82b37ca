"""Turns: who has waited gets its share, whatever others have waiting."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.pipeline.fair_queue import FairQueue

Path = tuple[str, str, int]


def served(queue: FairQueue[str], n: int, cost: float = 1.0) -> list[str]:
    return [queue.pop(cost) for _ in range(n)]


def test_one_flow_is_a_plain_queue() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in "abc":
        queue.push(("x",), item)
    assert (len(queue), queue.head(), served(queue, 3), len(queue)) == (3, "a", ["a", "b", "c"], 0)
    with pytest.raises(IndexError):
        queue.head()


def test_a_flood_leaves_the_others_their_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(1_000):
        queue.push(("flood",), "f")
    served(queue, 100)
    for _ in range(3):
        queue.push(("guest",), "g")
    # From its first moment on every second turn is the guest's, and no more than that.
    assert Counter(served(queue, 6)) == {"f": 3, "g": 3}


def test_who_asks_for_more_work_has_fewer_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.push(("long",), "l")
        queue.push(("short",), "s")
    work: Counter[str] = Counter()
    for _ in range(80):
        cost = 30 if queue.head() == "l" else 10
        work[queue.pop(cost)] += cost
    assert abs(work["l"] - work["s"]) <= 30


def test_weights_share_the_first_level() -> None:
    queue: FairQueue[str] = FairQueue({"interactive": 9.0, "bulk": 1.0})
    for _ in range(1_000):
        queue.push(("bulk", ""), "b")
        queue.push(("interactive", ""), "i")
    assert Counter(served(queue, 500)) == {"i": 450, "b": 50}


def test_who_comes_alone_each_time_does_not_keep_the_others_waiting() -> None:
    """A flow that is empty after each turn is forgotten; it must not start afresh each time."""
    queue: FairQueue[str] = FairQueue({"interactive": 9.0, "bulk": 1.0})
    for _ in range(10):
        queue.push(("bulk", ""), "b")
    taken: Counter[str] = Counter()
    for _ in range(100):
        queue.push(("interactive", ""), "i")
        while queue.head() == "b":  # what does not fit beside it waits for the next pass
            taken[queue.pop(3_000)] += 1
            if not queue:
                break
        taken[queue.pop(3_000)] += 1
    assert taken["i"] == 100
    assert taken["b"] == 10


def test_who_was_idle_has_no_claim_on_the_past() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(("late",), "l")
    served(queue, 1)
    for _ in range(100):
        queue.push(("busy",), "b")
    served(queue, 50)
    for _ in range(100):
        queue.push(("late",), "l")
    assert Counter(served(queue, 20)) == {"b": 10, "l": 10}


def test_what_is_put_back_is_next_and_uncharged() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3"):
        queue.push(("a",), item)
    for item in ("b1", "b2", "b3"):
        queue.push(("b",), item)
    first = served(queue, 3)
    for item in reversed(first):
        queue.put_back((item[0],), item, 1.0)
    assert len(queue) == 6
    assert served(queue, 3) == first
    assert sorted(first + served(queue, 3)) == ["a1", "a2", "a3", "b1", "b2", "b3"]


def test_the_head_may_become_several_or_none() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(("a",), "ab")
    queue.push(("c",), "c")
    queue.replace_head(["a", "b"])
    assert len(queue) == 3
    assert queue.pop(1.0) == "a"
    queue.replace_head([])
    assert len(queue) == 1
    assert queue.pop(1.0) == "b"


def test_keep_drops_the_others() -> None:
    queue: FairQueue[str] = FairQueue()
    for flow in "abc":
        for number in range(4):
            queue.push(("x", flow), f"{flow}{number}")
    queue.keep(lambda item: item[1] in "13" and item[0] != "b")
    assert len(queue) == 4
    assert sorted(served(queue, 4)) == ["a1", "a3", "c1", "c3"]


paths = st.tuples(
    st.sampled_from(["interactive", "bulk"]), st.sampled_from(["", "x", "y"]), st.integers(0, 2)
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), paths),
        st.tuples(st.just("pop"), st.floats(0.5, 50)),
        st.tuples(st.just("drop"), st.none()),
        st.tuples(st.just("split"), st.none()),
        st.tuples(st.just("back"), st.floats(0.5, 50)),
    ),
    max_size=120,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_nothing_is_lost_or_doubled_and_flows_keep_their_order(
    todo: list[tuple[str, object]],
) -> None:
    queue: FairQueue[tuple[Path, float]] = FairQueue({"interactive": 9.0, "bulk": 1.0})
    waiting: dict[Path, list[float]] = {}
    number = 0.0
    for what, value in todo:
        if what == "push":
            path: Path = value  # type: ignore[assignment]
            number += 1
            queue.push(path, (path, number))
            waiting.setdefault(path, []).append(number)
        elif queue:
            head = queue.head()
            assert waiting[head[0]][0] == head[1]
            if what == "pop":
                assert queue.pop(float(value)) == head  # type: ignore[arg-type]
                waiting[head[0]].pop(0)
            elif what == "drop":
                queue.replace_head([])
                waiting[head[0]].pop(0)
            elif what == "split":
                queue.replace_head([head, (head[0], head[1] + 0.5)])
                waiting[head[0]].insert(1, head[1] + 0.5)
            else:
                queue.pop(float(value))  # type: ignore[arg-type]
                queue.put_back(head[0], head, float(value))  # type: ignore[arg-type]
        assert len(queue) == sum(map(len, waiting.values()))
    while queue:
        path, item = queue.pop(1.0)
        assert waiting[path].pop(0) == item
    assert not any(waiting.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1, 100), min_size=2, max_size=6), st.integers(20, 200))
def test_between_two_that_always_wait_the_work_differs_by_an_item_each(
    costs: list[float], turns: int
) -> None:
    queue: FairQueue[int] = FairQueue()
    for flow in range(len(costs)):
        for _ in range(turns + 1):
            queue.push((flow,), flow)
    work = [0.0] * len(costs)
    for _ in range(turns):
        flow = queue.pop(costs[queue.head()])
        work[flow] += costs[flow]
    for i in range(len(costs)):
        for k in range(i):
            assert abs(work[i] - work[k]) <= costs[i] + costs[k] + 1e-6
