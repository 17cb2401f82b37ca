"""The Tokenizer replica without Ray: what handles may send, and replicas that die under a call."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import without_ray
from ray.exceptions import ActorDiedError, RayTaskError

from deployments.engines.null import NullEngine
from deployments.pipeline.errors import (
    InvalidInput,
    NotReady,
    Overloaded,
    ServiceError,
    TooLarge,
)
from deployments.pipeline.microbatch import LONG_CHARS
from deployments.pipeline.retry import Attempts, Hung, LostReplica, RetryBudget
from deployments.replica.holding import Holding
from deployments.replica.model_chain import _answered, _tried
from deployments.settings import Settings
from deployments.tokenizer import Tokenizer

pytestmark = pytest.mark.anyio

# More characters than are encoded on the event loop.
MANY = ["很好" * 100] * 20


@pytest.fixture
async def tokenizer(demo_model: Path) -> Tokenizer:
    settings = Settings.model_validate(
        {"model": {"id": str(demo_model)}, "limits": {"max_batch_texts": 50}}
    )
    replica = without_ray.tokenizer(settings)
    await replica._chain.loading
    return replica


@pytest.mark.parametrize(
    "text", [("很好", "太差了"), ["很好", "太差了"], np.array(["很好", "太差了"]).tolist()]
)
async def test_any_sequence_of_texts_is_answered_in_order(tokenizer: Tokenizer, text: Any) -> None:
    answers = await tokenizer.classify(text)
    assert isinstance(answers, list)
    assert [answer["tokens"] for answer in answers] == [4, 5]


async def test_numpys_strings_are_texts(tokenizer: Tokenizer) -> None:
    one = await tokenizer.classify(np.str_("很好"))
    assert isinstance(one, dict)
    assert one["tokens"] == 4
    (listed,) = await tokenizer.classify(np.array(["很好"]))
    assert listed == one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": None}, "`text`: expected str or array, got null"),
        ({"text": b"x"}, "`text`: expected str or array, got bytes"),
        ({"text": np.array([])}, "`text` is an empty list"),
        ({"text": {"a", "b"}}, "`text` is a set, which has no order. Make it a list."),
        ({"text": []}, "`text` is an empty list"),
        ({"text": "a", "truncate": True}, "Unknown field `truncate`; the field is `truncation`."),
        ({"text": "a", "\ud800": 1}, "The body has an unknown field."),
        ({"text": "a", "top_k": "\ud800"}, "An option is a string that is not valid Unicode."),
        ({"text": "a", "top_k": "many"}, "`top_k`: expected int or null, got str."),
        (
            {"text": "a", "timeout_s": "5"},
            "timeout_s must be a number of seconds above 0, or None.",
        ),
        ({"text": "a", "timeout_s": float("nan")}, "timeout_s must be a number of seconds above 0"),
        ({"text": "a", "timeout_s": -1.0}, "timeout_s must be a number of seconds above 0"),
        ({"text": "a", "timeout_s": 0}, "timeout_s must be a number of seconds above 0"),
    ],
)
async def test_wrong_arguments_are_named_as_over_http(
    tokenizer: Tokenizer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await tokenizer.classify(**arguments)
    assert caught.value.message.startswith(message)


async def test_too_many_texts_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TooLarge, match="text has 10000 texts; the limit is 50"):
        await tokenizer.classify(["很好"] * 10_000)


async def test_all_but_the_shortest_texts_are_encoded_off_the_event_loop(
    tokenizer: Tokenizer,
) -> None:
    threads: list[int] = []
    models = tokenizer._chain._models

    class Watched:
        def encode(self, inputs: Any) -> Any:
            threads.append(threading.get_ident())
            return models.encode(inputs)

        def __getattr__(self, name: str) -> Any:
            return getattr(models, name)

    tokenizer._chain._models = Watched()  # type: ignore[assignment]
    await tokenizer.classify("很好")
    await tokenizer.classify(MANY)
    assert threads[0] == threading.get_ident() != threads[1]


async def test_long_texts_take_turns_in_a_thread_of_their_own(tokenizer: Tokenizer) -> None:
    busy, done = threading.Event(), threading.Event()
    tokenizer._chain._long_texts.submit(lambda: (busy.set(), done.wait(30)))
    assert await asyncio.to_thread(busy.wait, 10)
    long = asyncio.create_task(tokenizer.classify("a" * (LONG_CHARS + 1)))
    for text in ("很好", MANY):
        assert await asyncio.wait_for(tokenizer.classify(text), 10)
    assert not long.done()
    done.set()
    assert isinstance(await asyncio.wait_for(long, 10), dict)


async def test_a_new_replica_has_callers_wait_for_its_first_answer_no_longer_than_for_the_model(
    demo_model: Path,
) -> None:
    model: dict[str, Any] = {"model": {"id": str(demo_model)}}
    loading = asyncio.Event()

    async def predict(batch: Any, *_: Any) -> Any:
        await loading.wait()
        return NullEngine().predict(batch)

    def replica(max_queue_s: float) -> Tokenizer:
        settings = Settings.model_validate(model | {"limits": {"max_queue_s": max_queue_s}})
        return without_ray.tokenizer(settings, predict)

    impatient, patient = replica(0.05), replica(60.0)
    waiting = asyncio.create_task(patient.classify("很好"))
    with pytest.raises(NotReady, match="still loading"):
        await impatient.classify("很好")
    assert not waiting.done()
    loading.set()
    assert isinstance(await asyncio.wait_for(waiting, 10), dict)
    await asyncio.wait_for(impatient._chain.loading, 10)
    assert isinstance(await impatient.classify("很好"), dict)


async def lost(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ActorDiedError(), asyncio.CancelledError()])
async def test_a_replica_that_was_lost_is_told_from_errors(error: BaseException) -> None:
    with pytest.raises(LostReplica):
        await _tried(lost(error))


async def test_a_replicas_own_error_is_passed_on() -> None:
    with pytest.raises(Overloaded, match="full"):
        await _tried(lost(RayTaskError("predict", "traceback", Overloaded("full", 7.0))))


async def test_a_cancelled_caller_is_not_taken_for_a_lost_replica() -> None:
    task = asyncio.create_task(_tried(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_call_that_loses_every_replica_gives_up() -> None:
    tries: list[int] = []

    async def dies() -> None:
        tries.append(1)
        raise LostReplica

    with pytest.raises(ServiceError, match="replicas died"):
        await _answered(Attempts(RetryBudget(9), RetryBudget(9)), dies, timeout_s=10)
    assert len(tries) == 3


async def test_a_replica_that_ends_itself_says_with_which_texts() -> None:
    error = RayTaskError("predict", "traceback", Hung([2], 7))
    with pytest.raises(Hung) as told:
        await _tried(lost(error))
    assert (told.value.suspects, told.value.n_texts) == ([2], 7)


class Classifiers:
    """As a DeploymentHandle that asks all replicas: each answers so, or the question fails."""

    def __init__(self, *answers: Any) -> None:
        self.asked = 0
        self._answers = answers

    def broadcast(self, method_name: str) -> Any:
        assert method_name == "holding"
        return self

    async def results_async(self, timeout_s: float, return_exceptions: bool) -> list[Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if TimeoutError in self._answers:
            raise TimeoutError
        return list(self._answers)


async def test_all_that_are_stuck_ask_once_what_classifiers_work_on() -> None:
    classifiers: Any = Classifiers({3, 4}, ActorDiedError(), set(), {5})
    holding = Holding(classifiers)
    first, *others = [asyncio.create_task(holding()) for _ in range(9)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [{3, 4, 5}] * 8
    assert classifiers.asked == 1
    assert await holding() == {3, 4, 5}
    assert classifiers.asked == 2


async def test_one_that_does_not_answer_leaves_it_unknown() -> None:
    classifiers: Any = Classifiers({3, 4}, TimeoutError)
    assert await Holding(classifiers)() == set()
