"""The ingress's gatherer: what is sent together, when, and what one caller can do to another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from deployments.core.errors import DeadlineExceeded, EmptyText, Overloaded, ServiceError
from deployments.core.microbatch import MicroBatcher, Result
from deployments.core.types import TextInput

pytestmark = pytest.mark.anyio


class Chain:
    """Answers with the text itself. Holds every batch until `gate` is open."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(
        self, inputs: Sequence[TextInput], timeouts_s: Sequence[float]
    ) -> list[Result]:
        self.batches.append([item.text for item in inputs])
        await self.gate.wait()
        if any(item.text == "overload" for item in inputs):
            raise Overloaded("full", 7.0)
        if any(item.text == "crash" for item in inputs):
            raise RuntimeError("a secret text")
        return [
            EmptyText("empty") if item.text == "bad" else {"label": item.text} for item in inputs
        ]


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
        max_pending=max_pending,
    )


def inputs(*texts: str) -> list[TextInput]:
    return [TextInput(text) for text in texts]


async def start(batcher: MicroBatcher, *texts: str) -> list[asyncio.Task[list[Result]]]:
    """One caller per text, all in one turn of the loop, then a few turns for them to be sent."""
    tasks = [asyncio.create_task(batcher.submit(inputs(text), 10)) for text in texts]
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


async def test_the_gap_gathers_only_while_a_call_is_under_way() -> None:
    chain = Chain()
    batcher = gatherer(chain, max_inflight=8, min_gap_s=3_600)
    assert await batcher.submit(inputs("a"), 10) == [{"label": "a"}]
    assert await batcher.submit(inputs("b"), 10) == [{"label": "b"}]  # idle again: no wait
    chain.gate.clear()
    tasks = await start(batcher, "c")
    tasks += await start(batcher, "d")
    tasks += await start(batcher, "e")
    assert chain.batches == [["a"], ["b"], ["c"]]  # d and e gather
    chain.gate.set()
    await asyncio.gather(*tasks)
    assert chain.batches[3:] == [["d", "e"]]


async def test_a_batch_holds_at_most_max_texts() -> None:
    chain = Chain()
    answers = await gatherer(chain, max_texts=2).submit(inputs(*"abcde"), 10)
    assert answers == [{"label": t} for t in "abcde"]
    assert chain.batches == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_bad_text_harms_no_other() -> None:
    answers = await gatherer(Chain()).submit(inputs("a", "bad", "c"), 10)
    assert isinstance(answers[1], EmptyText)
    assert [answers[0], answers[2]] == [{"label": "a"}, {"label": "c"}]


async def test_the_chains_own_error_reaches_every_caller() -> None:
    (answer,) = await gatherer(Chain()).submit(inputs("overload"), 10)
    assert isinstance(answer, Overloaded)
    assert answer.retry_after_s == 7.0


async def test_a_crash_is_answered_without_its_message_and_the_next_call_works() -> None:
    batcher = gatherer(Chain())
    (answer,) = await batcher.submit(inputs("crash"), 10)
    assert type(answer) is ServiceError
    assert "secret" not in answer.message
    assert await batcher.submit(inputs("a"), 10) == [{"label": "a"}]


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
        await batcher.submit(inputs("a"), 0.05)
    assert batcher.pending == 0


async def test_too_many_waiting_texts_are_refused_and_room_comes_back() -> None:
    chain = Chain()
    chain.gate.clear()
    batcher = gatherer(chain, max_pending=2)
    tasks = await start(batcher, "a", "b")
    with pytest.raises(Overloaded, match="2 texts wait in this replica; the limit is 2"):
        await batcher.submit(inputs("c"), 10)
    chain.gate.set()
    await asyncio.gather(*tasks)
    assert await batcher.submit(inputs("c"), 10) == [{"label": "c"}]
