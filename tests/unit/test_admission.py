"""Who is taken in, by the work that waits and the speed that is known."""

from __future__ import annotations

import pytest

from deployments.pipeline.admission import Admission, DrainRate, work_of
from deployments.pipeline.errors import Overloaded
from deployments.pipeline.flow import DEFAULT_FLOW, Flow
from deployments.pipeline.types import Options, TextInput

FLOOD, GUEST = Flow(client="flood"), Flow(client="guest")
BULK = Flow("bulk", "", 1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def at_full_speed(max_pending: int = 1_000, work_per_s: float = 100.0) -> tuple[Admission, Clock]:
    """An ingress that has been answering `work_per_s` for a while, with one request under way."""
    clock = Clock()
    admission = Admission(max_pending, max_queue_s=10.0, clock=clock)
    admission.enter(DEFAULT_FLOW, 1, 10.0, 30.0)
    for _ in range(20):
        clock.now += 1.0
        admission.rate.record(work_per_s, clock.now - 1.0, clock.now)
    return admission, clock


def test_before_anything_is_known_only_the_number_counts() -> None:
    admission = Admission(3, max_queue_s=0.001, clock=Clock())
    for _ in range(3):
        admission.enter(DEFAULT_FLOW, 1, 1e9, 30.0)
    with pytest.raises(Overloaded, match="3 texts wait in this replica; the limit is 3"):
        admission.enter(DEFAULT_FLOW, 1, 1.0, 30.0)


def test_where_nothing_waits_anything_is_taken_in() -> None:
    admission = Admission(3, max_queue_s=10.0, clock=Clock())
    admission.enter(DEFAULT_FLOW, 500, 1e9, 0.001)
    admission.leave(DEFAULT_FLOW, 500, 1e9)
    assert admission.pending == 0


def test_what_would_wait_too_long_is_refused_with_the_time_to_come_back() -> None:
    admission, _ = at_full_speed()
    admission.enter(DEFAULT_FLOW, 1, 1_200.0, 30.0)
    with pytest.raises(
        Overloaded, match=r"would wait about 12\.1 s .* the limit is 10 s"
    ) as caught:
        admission.enter(DEFAULT_FLOW, 1, 10.0, 30.0)
    assert caught.value.retry_after_s == pytest.approx(2.1)


def test_who_has_less_time_is_refused_earlier_and_bulk_later() -> None:
    admission, _ = at_full_speed()
    admission.enter(DEFAULT_FLOW, 1, 500.0, 30.0)
    with pytest.raises(Overloaded, match=r"the limit is 0\.5 s"):
        admission.enter(DEFAULT_FLOW, 1, 10.0, 1.0)
    admission.enter(BULK, 40, 400.0, 30.0)  # 5 s of others' work first: half of its time is 15 s
    with pytest.raises(Overloaded):
        admission.enter(BULK._replace(request=2), 40, 400.0, 5.0)


def test_a_client_waits_for_as_much_of_others_as_it_asks_itself() -> None:
    admission, _ = at_full_speed()
    admission.enter(FLOOD, 1, 900.0, 30.0)
    admission.enter(FLOOD, 1, 400.0, 30.0)
    with pytest.raises(Overloaded):
        admission.enter(FLOOD, 1, 10.0, 30.0)
    admission.enter(GUEST, 1, 100.0, 30.0)


def test_a_flood_that_fills_the_queue_leaves_others_their_share() -> None:
    clock = Clock()
    admission = Admission(10, max_queue_s=10.0, clock=clock)
    for _ in range(10):
        admission.enter(FLOOD, 1, 1.0, 30.0)
    with pytest.raises(Overloaded):
        admission.enter(FLOOD, 1, 1.0, 30.0)
    for _ in range(5):
        admission.enter(GUEST, 1, 1.0, 30.0)
    with pytest.raises(Overloaded):
        admission.enter(GUEST, 1, 1.0, 30.0)
    # However many clients there are, memory has an end.
    for number in range(1_000):
        try:
            admission.enter(Flow(client=f"sybil {number}"), 1, 1.0, 30.0)
        except Overloaded:
            break
    assert admission.pending <= 20


def test_idle_time_does_not_slow_the_known_speed_and_a_stall_does() -> None:
    rate = DrainRate()
    assert rate.per_s(0.0) is None
    rate.wake(0.0)
    rate.record(100.0, 0.0, 2.0)
    rate.rest(2.0)
    assert rate.per_s(100.0) == pytest.approx(50.0)
    rate.wake(200.0)
    assert rate.per_s(200.5) == pytest.approx(4 * 50.0, rel=0.4)  # a young queue may be faster
    assert rate.per_s(205.0) == pytest.approx(50.0)  # the model may be away for some seconds
    assert (rate.per_s(215.0) or 0.0) < 20.0


def test_time_with_nothing_but_refused_texts_counts_neither_for_nor_against() -> None:
    rate = DrainRate()
    rate.wake(0.0)
    rate.record(100.0, 0.0, 2.0)
    for second in range(3, 1_000):
        rate.record(0.0, second - 1.0, second)
    assert rate.per_s(1_000.0) == pytest.approx(50.0, rel=0.4)
    rate.record(100.0, 998.0, 1_000.0)
    assert rate.per_s(1_000.0) == pytest.approx(50.0)


def test_of_calls_under_way_together_time_counts_once() -> None:
    rate = DrainRate()
    rate.wake(0.0)
    for second in range(1, 30):
        rate.record(50.0, second - 3.0, second)
    assert rate.per_s(29.0) == pytest.approx(50.0, rel=0.1)


def test_a_text_that_may_not_be_cut_and_is_too_long_never_reaches_the_model() -> None:
    assert work_of(TextInput("a" * 9_000, options=Options(truncation=False)), 2_000) == 8
    assert work_of(TextInput("a" * 900, options=Options(truncation=False)), 2_000) == 908


def test_a_texts_work_ends_where_the_model_stops_reading() -> None:
    assert work_of(TextInput("a" * 100), 2_000) == 108
    assert work_of(TextInput("a" * 90_000, "b" * 5), 2_000) == 2_008
