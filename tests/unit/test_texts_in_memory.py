"""No text outlives its request: nothing that Python can reach holds it, without a collector's help.

Cycles would: an error's traceback holds the frames that it went through, and those their texts.
"""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import threading
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import without_ray
from virtual_time import after

from deployments.engines.null import NullEngine
from deployments.http.app import create_app
from deployments.pipeline.batcher import TokenBatcher
from deployments.pipeline.errors import DeadlineExceeded, ServiceError
from deployments.pipeline.gate import Gate
from deployments.pipeline.microbatch import MicroBatcher, Result
from deployments.pipeline.types import Encoded, Int32, Logits, TextInput
from deployments.settings import Settings
from tests.trials.heap import holders

pytestmark = pytest.mark.anyio

POISON = 77
SLOW = 99


def predict(batch: Encoded) -> Logits:
    if POISON in batch.lengths:
        raise ValueError(f"the model fails on {batch.input_ids.tolist()}")
    return NullEngine().predict(batch)


class Replica:
    """The chain without Ray: the real Tokenizer, batcher and decoder in one process."""

    def __init__(self, model: Path) -> None:
        limits = {"max_batch_texts": 5, "max_text_chars": 3_000, "max_pending_texts": 4}
        settings = Settings.model_validate({"model": {"id": str(model)}, "limits": limits})
        self.batcher = TokenBatcher(predict, max_batch_tokens=4_096, max_queue_tokens=262_144)

        async def predicted(batch: Encoded, *how: Any) -> Logits:
            if SLOW in batch.lengths:
                await asyncio.Event().wait()
            return await self.batcher.submit(batch, *how)

        self.tokenizer = without_ray.tokenizer(settings, predicted)
        self.app = create_app(self.tokenizer, settings.limits)

    async def post(self, body: bytes, content_type: str = "application/json") -> int:
        """The status of the answer."""
        statuses: list[int] = []
        bodies = [body]
        del body
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "headers": [(b"content-type", content_type.encode())],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": bodies.pop()}

        async def send(message: dict[str, Any]) -> None:
            statuses.append(message.get("status", 0))

        await self.app(scope, receive, send)
        return statuses[0]


@pytest.fixture
async def replica(demo_model: Path) -> AsyncIterator[Replica]:
    replica = Replica(demo_model)
    await asyncio.wait_for(replica.tokenizer._chain.loading, 30)
    gc.collect()
    gc.disable()
    yield replica
    gc.enable()


async def held_after_the_request(core: str, ids: list[int]) -> list[str]:
    """What still holds the text when cancelled tasks and threads have let go, within a second."""
    held: list[str] = []
    for _ in range(20):
        await asyncio.sleep(0.02)
        if not (held := holders(core, ids)):
            break
    return held


def body_of(kind: str, core: str) -> tuple[bytes, str]:
    """A body with `core` in it, and its content type."""
    text = f"{core}，很好"
    bodies: dict[str, Any] = {
        "one": {"text": text},
        "list": {"text": [text, text]},
        "pairs": {"text": [text], "text_pair": [text]},
        "a bad one among good ones": {"text": [text, "", 5]},
        "unknown field": {"text": text, core: 1},
        "wrong type": {"text": {core: core}},
        "too many texts": {"text": [text] * 6},
        "too long": {"text": text * 1_000},
        "large": {"text": [text, "a" * 100_000, "好"]},
        "large and too long": {"text": text * 10_000},
        "refused to truncate": {"text": text * 60, "truncation": False},
        "the model fails on it": {"text": core + "好" * (POISON - 2 - len(core))},
        "the model fails on one": {"text": [core + "好" * (POISON - 2 - len(core)), "好"]},
        "more than may wait": {"text": [text] * 5},
    }
    if kind == "form":
        return urlencode({"text": text}).encode(), "application/x-www-form-urlencoded"
    if kind == "plain":
        return text.encode(), "text/plain"
    if kind == "no JSON":
        return json.dumps({"text": text})[:-1].encode(), "application/json"
    if kind == "no UTF-8":
        return f'{{"text": "{text}'.encode() + b'\xff"}', "application/json"
    return json.dumps(bodies[kind], ensure_ascii=False).encode(), "application/json"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("one", 200),
        ("list", 200),
        ("large", 200),
        ("pairs", 200),
        ("form", 200),
        ("plain", 200),
        ("a bad one among good ones", 200),
        ("the model fails on one", 200),
        ("no JSON", 400),
        ("no UTF-8", 400),
        ("too many texts", 413),
        ("too long", 413),
        ("large and too long", 413),
        ("refused to truncate", 413),
        ("unknown field", 422),
        ("wrong type", 422),
        ("the model fails on it", 500),
    ],
)
async def test_an_answered_text_is_held_by_nobody(replica: Replica, kind: str, status: int) -> None:
    core, ids = canary(replica)
    assert await replica.post(*body_of(kind, core)) == status
    assert await held_after_the_request(core, ids) == []


async def test_the_search_finds_what_is_held(replica: Replica) -> None:
    core, ids = canary(replica)
    in_a_list = [f"{core}。"]
    assert [held.split()[0] for held in holders(core, ids)] == ["list"]
    in_a_list.clear()
    encoded = Encoded(np.asarray([2, *ids, 3], np.int32), np.asarray([len(ids) + 2], np.int32))
    assert [held.split()[0] for held in holders(core, ids)] == ["Encoded"]
    del encoded
    assert holders(core, ids) == []


async def test_a_text_past_its_deadline_is_held_by_nobody(replica: Replica) -> None:
    core, ids = canary(replica)
    with pytest.raises(ServiceError):
        await replica.tokenizer.classify(core + "好" * (SLOW - 2 - len(core)), timeout_s=0.01)
    assert await held_after_the_request(core, ids) == []


async def test_a_text_whose_caller_left_is_held_by_nobody(replica: Replica) -> None:
    core, ids = canary(replica)
    text = core + "好" * (SLOW - 2 - len(core))
    task = asyncio.create_task(replica.tokenizer.classify(text))
    del text
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    del task
    assert await held_after_the_request(core, ids) == []


async def test_nor_is_it_where_serve_keeps_the_error_of_the_request_that_was_cancelled(
    replica: Replica,
) -> None:
    core, ids = canary(replica)
    body = json.dumps({"text": core + "好" * (SLOW - 2 - len(core))}).encode()
    task = asyncio.create_task(replica.post(body))
    del body
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as kept:
        await task
    assert await held_after_the_request(core, ids) == []
    assert kept.value is not None


async def test_an_unexpected_failure_holds_no_text(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, ids = canary(replica)

    async def fail(inputs: Any, timeout_s: float | None = None) -> Any:
        raise RuntimeError(f"failed on {inputs[0].text}")

    monkeypatch.setattr(replica.tokenizer, "classify_inputs", fail)
    assert await replica.post(*body_of("one", core)) == 500
    with pytest.raises(ServiceError):
        await replica.tokenizer.classify(core + "。")
    assert await held_after_the_request(core, ids) == []


class Text(str):
    """One that tells when it is gone."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("left", [asyncio.CancelledError, DeadlineExceeded])
async def test_a_text_that_nobody_waits_for_is_not_kept_in_the_gatherers_queue(
    left: type[BaseException],
) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def run(inputs: Sequence[TextInput], timeouts_s: Sequence[float]) -> list[Result]:
        started.set()
        await gate.wait()
        return [{"label": item.text} for item in inputs]

    gatherer = MicroBatcher(
        run, max_texts=9, max_inflight=1, min_gap_s=0.0, gate=Gate(9, 10.0, time.monotonic)
    )
    first = asyncio.create_task(gatherer.submit([TextInput("first")], after(10)))
    await started.wait()
    text = Text("private")
    gone = weakref.ref(text)
    timeout_s = 10 if left is asyncio.CancelledError else 0.01
    waiting = asyncio.create_task(
        gatherer.submit([TextInput(text), TextInput(text)], after(timeout_s))
    )
    del text
    await asyncio.sleep(0)
    assert gone() is not None
    if timeout_s == 10:
        waiting.cancel()
    (ended,) = await asyncio.gather(waiting, return_exceptions=True)
    assert type(ended) is left
    del waiting, ended
    await asyncio.sleep(0)
    assert len(gatherer._queue) == 2
    assert gone() is None
    last = asyncio.create_task(gatherer.submit([TextInput("last")], after(10)))
    gate.set()
    assert [await first, await last] == [[{"label": "first"}], [{"label": "last"}]]
    assert gatherer.pending == len(gatherer._queue) == 0


async def test_token_ids_that_nobody_waits_for_are_not_kept_in_the_classifiers_queue() -> None:
    started, gate = threading.Event(), threading.Event()

    def held(batch: Encoded) -> Logits:
        started.set()
        assert gate.wait(10)
        return NullEngine().predict(batch)

    batcher = TokenBatcher(held, max_batch_tokens=9, max_queue_tokens=999)

    def submit(ids: Int32) -> asyncio.Task[Logits]:
        texts = Encoded(ids, np.asarray([len(ids) - 2, 2], np.int32))
        return asyncio.create_task(batcher.submit(texts, np.full(2, 10.0, np.float32)))

    first = submit(np.arange(5, dtype=np.int32))
    assert await asyncio.to_thread(started.wait, 10)
    others = [submit(np.arange(5, dtype=np.int32)) for _ in range(3)]
    ids = np.arange(6, dtype=np.int32)
    gone = weakref.ref(ids)
    waiting = submit(ids)
    del ids
    await asyncio.sleep(0)
    assert gone() is not None
    waiting.cancel()
    await asyncio.wait([waiting])
    del waiting
    assert gone() is None
    gate.set()
    assert [len(await task) for task in [first, *others]] == [2, 2, 2, 2]
    assert batcher.queued_tokens == 0


def canary(replica: Replica) -> tuple[str, list[int]]:
    """A text of 8 characters that nobody else has, and its token ids."""
    alphabet = "山水花鸟风月云雨雪霜天地日星江河湖海"
    core = "".join(secrets.choice(alphabet) for _ in range(8))
    ids = replica.tokenizer._chain._models.encode([TextInput(core)]).batch.input_ids
    return core, ids.tolist()[1:-1]
