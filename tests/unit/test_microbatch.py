"""The ingress's gatherer: what is sent together, when, and what one caller can do to another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import after

from deployments.pipeline.errors import DeadlineExceeded, EmptyText, Overloaded, ServiceError
from deployments.pipeline.gate import Gate
from deployments.pipeline.microbatch import MicroBatcher, Result
from deployments.pipeline.types import TextInput

pytestmark = pytest.mark.anyio


class Panic(BaseException):
    """As which Rust's panics reach Python."""


class Chain:
    """Answers with the text itself. Holds every batch until `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.ended: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(
        self, inputs: Sequence[TextInput], timeouts_s: Sequence[float]
    ) -> list[Result]:
        self.batches.append([item.text for item in inputs])
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ended.append([item.text for item in inputs])
            raise
        if any(item.text == "overload" for item in inputs):
            raise Overloaded("full", 7.0)
        if any(item.text == "crash" for item in inputs):
            raise RuntimeError("a secret text")
        if any(item.text == "panic" for item in inputs):
            raise Panic("a secret text")
        if any(item.text == "lost" for item in inputs):
            return [{"label": "whose?"}] * (len(inputs) + 1)
        return [
            EmptyText("empty") if item.text == "bad" else {"label": item.text} for item in inputs
        ]


def room_for(texts: int) -> Gate:
    return Gate(texts, max_queue_s=10.0, clock=time.monotonic)


def gatherer(
    chain: Chain,
    max_texts: int = 8,
    max_inflight: int = 1,
    min_gap_s: float = 0.0,
    max_pending: int = 100,
) -> MicroBatcher:
    return MicroBatcher(
        chain,
        max_texts=max_texts,
        max_inflight=max_inflight,
        min_gap_s=min_gap_s,
        gate=room_for(max_pending),
    )


def inputs(*texts: str) -> list[TextInput]:
    return [TextInput(text) for text in texts]


async def start(batcher: MicroBatcher, *texts: str) -> list[asyncio.Task[list[Result]]]:
    """One caller per text, all in one turn of the loop, then a few turns for them to be sent."""
    tasks = [asyncio.create_task(batcher.submit(inputs(text), after(10))) for text in texts]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_callers_of_one_turn_share_a_batch() -> None:
    chain = Chain()
    tasks = await start(gatherer(chain), "a", "b", "c")
    assert await asyncio.gather(*tasks) == [[{"label": t}] for t in "abc"]
    assert chain.batches == [["a", "b", "c"]]


async def test_what_arrives_during_a_call_goes_out_together_after_it() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain)
    tasks = await start(batcher, "a")
    tasks += await start(batcher, "b")
    tasks += await start(batcher, "c")
    assert chain.batches == [["a"]]
    chain.gate.set()
    await asyncio.gather(*tasks)
    assert chain.batches == [["a"], ["b", "c"]]


async def test_more_calls_may_be_under_way_so_that_all_classifiers_work() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain, max_inflight=2)
    tasks = await start(batcher, "a")
    tasks += await start(batcher, "b")
    tasks += await start(batcher, "c")
    assert chain.batches == [["a"], ["b"]]
    chain.gate.set()
    await asyncio.gather(*tasks)


async def test_a_lone_caller_never_waits_for_the_gap() -> None:
    batcher = gatherer(Chain(), max_inflight=8, min_gap_s=3_600)
    for text in "abc":
        assert await batcher.submit(inputs(text), after(10)) == [{"label": text}]


async def test_the_gap_gathers_until_those_are_back_who_asked_before() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain, max_inflight=8, min_gap_s=3_600)
    first = await start(batcher, "a")
    tasks = await start(batcher, "b")
    tasks += await start(batcher, "c")
    assert chain.batches == [["a"]]  # b and c gather
    chain.gate.set()
    await asyncio.gather(*first)
    tasks += await start(batcher, "a again")
    await asyncio.gather(*tasks)
    assert chain.batches == [["a"], ["b", "c", "a again"]]


async def test_who_does_not_come_back_is_waited_for_no_longer_than_the_gap() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain, max_inflight=8, min_gap_s=0.02)
    first = await start(batcher, "a")
    second = await start(batcher, "b")
    chain.gate.set()
    assert await asyncio.gather(*first, *second) == [[{"label": "a"}], [{"label": "b"}]]


async def test_where_calls_take_longer_than_the_gap_nobody_waits_between_them() -> None:
    chain = Chain()
    batcher = gatherer(chain, max_inflight=8, min_gap_s=0.001)
    chain.gate.clear()
    first = await start(batcher, "a", "b", "c")
    await asyncio.sleep(0.002)
    second = await start(batcher, "d")
    assert chain.batches == [["a", "b", "c"], ["d"]]  # sent beside the call under way
    chain.gate.set()
    await asyncio.gather(*first, *second)


async def test_callers_that_ask_again_and_again_fall_into_step() -> None:
    """16 connections cost 16 texts a call, not half of them while the others are under way."""
    sizes: list[int] = []

    async def chain(items: Sequence[TextInput], timeouts_s: Sequence[float]) -> list[Result]:
        sizes.append(len(items))
        await asyncio.sleep(0.001)
        return [{"label": item.text} for item in items]

    batcher = MicroBatcher(chain, max_texts=64, max_inflight=8, min_gap_s=30, gate=room_for(100))

    async def caller(number: int) -> None:
        for _ in range(10):
            await batcher.submit(inputs(str(number)), after(60))
            for _ in range(number % 5):  # some are slower to ask again
                await asyncio.sleep(0)

    await asyncio.gather(*(caller(number) for number in range(16)))
    assert sizes == [16] * 10


async def test_a_batch_holds_at_most_max_texts() -> None:
    chain = Chain()
    answers = await gatherer(chain, max_texts=2).submit(inputs(*"abcde"), after(10))
    assert answers == [{"label": t} for t in "abcde"]
    assert chain.batches == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_bad_text_harms_no_other() -> None:
    answers = await gatherer(Chain()).submit(inputs("a", "bad", "c"), after(10))
    assert isinstance(answers[1], EmptyText)
    assert [answers[0], answers[2]] == [{"label": "a"}, {"label": "c"}]


async def test_the_chains_own_error_reaches_every_caller() -> None:
    (answer,) = await gatherer(Chain()).submit(inputs("overload"), after(10))
    assert isinstance(answer, Overloaded)
    assert answer.retry_after_s == 7.0


async def test_a_crash_is_answered_without_its_message_and_the_next_call_works() -> None:
    batcher = gatherer(Chain())
    (answer,) = await batcher.submit(inputs("crash"), after(10))
    assert type(answer) is ServiceError
    assert "secret" not in answer.message
    assert await batcher.submit(inputs("a"), after(10)) == [{"label": "a"}]


async def test_a_caller_who_leaves_before_sending_is_not_sent() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain)
    first = await start(batcher, "a")
    leaving = await start(batcher, "leaving")
    staying = await start(batcher, "staying")
    leaving[0].cancel()
    await asyncio.sleep(0)
    chain.gate.set()
    await asyncio.gather(*first, *staying)
    assert chain.batches == [["a"], ["staying"]]
    assert batcher.pending == 0


async def test_a_caller_who_leaves_during_the_call_harms_no_other() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain)
    leaving, staying = await start(batcher, "leaving", "staying")
    leaving.cancel()
    chain.gate.set()
    assert await staying == [{"label": "staying"}]


async def test_the_deadline_answers_a_call_that_hangs() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain)
    with pytest.raises(DeadlineExceeded, match=r"No answer within 0\.05 s"):
        await batcher.submit(inputs("a"), after(0.05))
    assert batcher.pending == 0


async def test_who_waits_here_is_told_the_time_though_others_keep_the_same_deadline() -> None:
    async def until_the_last_moment(
        items: Sequence[TextInput], deadlines: Sequence[float]
    ) -> list[Result]:
        await asyncio.sleep(max(0.0, deadlines[0] - asyncio.get_running_loop().time()))
        raise DeadlineExceeded("no number in here")

    batcher = MicroBatcher(
        until_the_last_moment, max_texts=9, max_inflight=1, min_gap_s=0.0, gate=room_for(9)
    )
    for _ in range(5):
        with pytest.raises(DeadlineExceeded, match=r"No answer within 0\.03 s"):
            await batcher.submit(inputs("a"), after(0.03))


async def test_too_many_waiting_texts_are_refused_and_room_comes_back() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain, max_pending=2)
    tasks = await start(batcher, "a", "b")
    with pytest.raises(Overloaded, match="2 texts wait in this replica; the limit is 2"):
        await batcher.submit(inputs("c"), after(10))
    chain.gate.set()
    await asyncio.gather(*tasks)
    assert await batcher.submit(inputs("c"), after(10)) == [{"label": "c"}]


async def test_a_call_that_all_have_left_is_ended() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain)
    leaving = await start(batcher, "a", "b")
    waiting = await start(batcher, "c")
    leaving[0].cancel()
    await asyncio.sleep(0)
    assert chain.ended == []  # b still waits
    leaving[1].cancel()
    await asyncio.wait(leaving)
    for _ in range(5):
        await asyncio.sleep(0)
    assert chain.ended == [["a", "b"]]
    assert chain.batches == [["a", "b"], ["c"]]  # its place is free again
    chain.gate.set()
    assert await waiting[0] == [{"label": "c"}]
    assert batcher.pending == 0


async def test_a_call_past_the_time_of_all_its_callers_is_ended() -> None:
    chain = Chain()
    chain.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await gatherer(chain).submit(inputs("a"), after(0.01))
    for _ in range(5):
        await asyncio.sleep(0)
    assert chain.ended == [["a"]]


@pytest.mark.parametrize("text", ["panic", "lost"])
async def test_no_fault_of_the_chain_leaves_a_caller_waiting(text: str) -> None:
    batcher = gatherer(Chain())
    answers = await batcher.submit(inputs("a", text), after(10))
    assert [type(answer) for answer in answers] == [ServiceError, ServiceError]
    assert await batcher.submit(inputs("a"), after(10)) == [{"label": "a"}]


CALL = st.tuples(
    st.lists(st.sampled_from(["a", "b", "bad", "crash", "panic"]), min_size=1, max_size=5),
    st.booleans(),  # leaves
    st.integers(0, 8),  # turns of the loop before the next call
)


@given(
    calls=st.lists(CALL, min_size=1, max_size=20),
    max_texts=st.integers(1, 6),
    max_inflight=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_callers_do_everybody_is_answered_and_nothing_stays_pending(
    calls: list[tuple[list[str], bool, int]], max_texts: int, max_inflight: int
) -> None:
    chain = Chain()

    async def simulate() -> None:
        batcher = gatherer(chain, max_texts=max_texts, max_inflight=max_inflight, max_pending=1_000)
        tasks = []
        for texts, leaves, turns in calls:
            tasks.append(asyncio.create_task(batcher.submit(inputs(*texts), after(30))))
            for turn in range(turns):
                await asyncio.sleep(0)
                chain.gate.clear() if turn % 3 == 1 else chain.gate.set()
            if leaves:
                tasks[-1].cancel()
        chain.gate.set()
        await asyncio.wait(tasks)
        for (texts, leaves, _), task in zip(calls, tasks, strict=True):
            if task.cancelled():
                assert leaves
                continue
            for text, answer in zip(texts, task.result(), strict=True):
                if not isinstance(answer, ServiceError):
                    assert answer == {"label": text}
        assert batcher.pending == 0

    asyncio.run(simulate())
    assert all(len(batch) <= max_texts for batch in chain.batches)
