"""Who is taken in, by the work that waits and the speed that is known."""

from __future__ import annotations

import pytest

from deployments.pipeline.errors import Overloaded
from deployments.pipeline.gate import NOTICED_S, Capacity, Gate, work_of
from deployments.pipeline.types import DEFAULT_FLOW, Flow, Load, Options, TextInput

FLOOD, GUEST = Flow(client="flood"), Flow(client="guest")
BULK = Flow("bulk", "", 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def at_full_speed(max_pending: int = 1_000, tokens_per_s: float = 100.0) -> tuple[Gate, Clock]:
    """An ingress with one request under way. Texts have a token for each unit of work."""
    clock = Clock()
    gate = Gate(max_pending, max_queue_s=10.0, clock=clock)
    gate.enter(DEFAULT_FLOW, 1, 10.0, 30.0)
    gate.capacity.answered(1e9, 10**9)
    gate.heard(Load("a", tokens_per_s, 0))
    return gate, clock


def test_before_anything_is_known_only_the_number_counts() -> None:
    gate = Gate(3, max_queue_s=0.001, clock=Clock())
    for _ in range(3):
        gate.enter(DEFAULT_FLOW, 1, 1e9, 30.0)
    with pytest.raises(Overloaded, match="3 texts wait in this replica; the limit is 3"):
        gate.enter(DEFAULT_FLOW, 1, 1.0, 30.0)


def test_where_nothing_waits_anything_is_taken_in() -> None:
    gate = Gate(3, max_queue_s=10.0, clock=Clock())
    gate.enter(DEFAULT_FLOW, 500, 1e9, 0.001)
    gate.leave(DEFAULT_FLOW, 500, 1e9)
    assert gate.pending == 0


def test_what_would_wait_too_long_is_refused_with_the_time_to_come_back() -> None:
    gate, _ = at_full_speed()
    gate.enter(DEFAULT_FLOW, 1, 1_200.0, 30.0)
    with pytest.raises(
        Overloaded, match=r"would wait about 12\.1 s .* the limit is 10 s"
    ) as caught:
        gate.enter(DEFAULT_FLOW, 1, 10.0, 30.0)
    assert caught.value.retry_after_s == pytest.approx(2.1)


def test_who_has_less_time_is_refused_earlier_and_bulk_later() -> None:
    gate, _ = at_full_speed()
    gate.enter(DEFAULT_FLOW, 1, 500.0, 30.0)
    with pytest.raises(Overloaded, match=r"the limit is 0\.5 s"):
        gate.enter(DEFAULT_FLOW, 1, 10.0, 1.0)
    gate.enter(BULK, 40, 400.0, 30.0)  # 5 s of others' work first: half of its time is 15 s
    with pytest.raises(Overloaded):
        gate.enter(BULK._replace(request=2), 40, 400.0, 5.0)


def test_a_client_waits_for_as_much_of_others_as_it_asks_itself() -> None:
    gate, _ = at_full_speed()
    gate.enter(FLOOD, 1, 900.0, 30.0)
    gate.enter(FLOOD, 1, 400.0, 30.0)
    with pytest.raises(Overloaded):
        gate.enter(FLOOD, 1, 10.0, 30.0)
    gate.enter(GUEST, 1, 100.0, 30.0)


def test_a_flood_that_fills_the_queue_leaves_others_their_share() -> None:
    clock = Clock()
    gate = Gate(10, max_queue_s=10.0, clock=clock)
    for _ in range(10):
        gate.enter(FLOOD, 1, 1.0, 30.0)
    with pytest.raises(Overloaded):
        gate.enter(FLOOD, 1, 1.0, 30.0)
    for _ in range(5):
        gate.enter(GUEST, 1, 1.0, 30.0)
    with pytest.raises(Overloaded):
        gate.enter(GUEST, 1, 1.0, 30.0)
    # However many clients there are, memory has an end.
    for number in range(1_000):
        try:
            gate.enter(Flow(client=f"sybil {number}"), 1, 1.0, 30.0)
        except Overloaded:
            break
    assert gate.pending <= 20


def test_idle_time_does_not_slow_the_known_speed_and_a_stall_does() -> None:
    capacity = Capacity()
    assert capacity.per_s(0.0) is None
    capacity.answered(1e9, 10**9)
    capacity.heard(Load("a", 50.0, 0), 2.0)
    capacity.wake(200.0)
    assert capacity.per_s(200.0) == pytest.approx(50.0)
    assert capacity.per_s(205.0) == pytest.approx(50.0)  # the model may be away for some seconds
    assert (capacity.per_s(220.0) or 0.0) < 20.0


def test_a_classifier_that_starts_slowly_is_waited_for_as_long() -> None:
    capacity = Capacity()
    capacity.answered(1e9, 10**9)
    capacity.heard(Load("a", 50.0, 0, start_s=60.0), 0.0)
    assert capacity.per_s(NOTICED_S + 60.0) == pytest.approx(50.0)
    assert (capacity.per_s(NOTICED_S + 80.0) or 0.0) < 20.0


def test_it_knows_how_long_all_that_was_taken_in_would_take_one_classifier() -> None:
    gate = Gate(2_000, max_queue_s=10.0, clock=Clock())
    assert gate.ahead_s() == 0.0
    gate.capacity.answered(1e9, 10**9)
    for name in ("a", "b"):
        gate.heard(Load(name, 100.0, 0))
    gate.enter(Flow(), 3, 300.0, 30.0)
    assert gate.ahead_s() == pytest.approx(3.0)
    gate.leave(Flow(), 3, 300.0)
    assert gate.ahead_s() == 0.0


def test_an_idle_service_refuses_nobody_whatever_its_first_text_took() -> None:
    """It was just started and asked one text; then 20 lists of 100 come at once."""
    gate = Gate(2_000, max_queue_s=10.0, clock=Clock())
    gate.heard(Load("a", 20_000.0, 0))
    gate.capacity.answered(20.0, 12)
    for number in range(20):
        gate.enter(Flow("bulk", "", number), 100, 100 * 73.0, 30.0)
    assert gate.pending == 2_000


def test_replicas_count_together_and_one_that_is_gone_counts_no_more() -> None:
    capacity = Capacity()
    capacity.answered(1e9, 10**9)
    capacity.heard(Load("a", 50.0, 7), 1.0)
    capacity.heard(Load("b", 30.0, 5), 1.5)
    assert capacity.per_s(1.5) == pytest.approx(80.0)
    assert capacity.queued(1.5) == pytest.approx(12.0)
    assert capacity.queued(2.2) == pytest.approx(5.0)  # what "a" said is old
    capacity.heard(Load("b", 30.0, 5), 8.0)
    assert capacity.per_s(8.0) == pytest.approx(30.0)


def test_what_came_by_other_ingress_replicas_is_one_more_client() -> None:
    gate, _ = at_full_speed()
    gate.enter(GUEST, 1, 400.0, 30.0)
    gate.heard(Load("a", 100.0, 100_000))
    gate.enter(Flow(client="third"), 1, 100.0, 30.0)  # a flood elsewhere is no affair of theirs
    with pytest.raises(Overloaded):
        gate.enter(GUEST, 1, 200.0, 30.0)


def test_tokens_are_told_from_characters_by_what_was_encoded() -> None:
    capacity = Capacity()
    capacity.heard(Load("a", 100.0, 0), 0.0)
    for _ in range(500):
        capacity.answered(1_000.0, 250)
    assert capacity.per_s(0.0) == pytest.approx(400.0, rel=0.01)
    for _ in range(500):
        capacity.answered(1_000.0, 900)
    assert capacity.per_s(0.0) == pytest.approx(111.0, rel=0.01)


def test_a_text_that_may_not_be_cut_and_is_too_long_never_reaches_the_model() -> None:
    assert work_of(TextInput("a" * 9_000, options=Options(truncation=False)), 2_000) == 8
    assert work_of(TextInput("a" * 900, options=Options(truncation=False)), 2_000) == 908


def test_a_texts_work_ends_where_the_model_stops_reading() -> None:
    assert work_of(TextInput("a" * 100), 2_000) == 108
    assert work_of(TextInput("a" * 90_000, "b" * 5), 2_000) == 2_008


def test_its_state_tells_what_classifiers_said_and_counts_refusals() -> None:
    now = 0.0
    gate = Gate(10, 1.0, lambda: now)
    gate.heard(Load("a", 100.0, 7, 5.0, 3, 12, 240))
    gate.enter(DEFAULT_FLOW, 10, 1.0, 30.0)
    with pytest.raises(Overloaded):
        gate.enter(DEFAULT_FLOW, 1, 1.0, 30.0)
    now = 2.5
    state = gate.state()
    assert state["ingress"]["pending_texts"] == state["ingress"]["max_pending_texts"] == 10
    assert state["ingress"]["refused_requests"] == 1
    assert state["classifiers"] == [
        {
            "replica": "a",
            "heard_s": 2.5,
            "queued_tokens": 7,
            "tokens_per_s": 100,
            "passes": 3,
            "read_texts": 12,
            "read_tokens": 240,
        }
    ]
