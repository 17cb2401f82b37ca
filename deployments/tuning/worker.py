"""One replica under load, in a process of its own: the real engine behind the real queue."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from deployments.engines.loaded import load_engine
from deployments.pipeline.batcher import ModelThread, TokenBatcher
from deployments.pipeline.types import Encoded, Float32
from deployments.settings import EngineSettings, ModelSettings, Settings

# A run that has not answered everybody twice by its end goes on, up to so many times its length.
MAX_EXTENSION = 4
_PATIENCE_S = 1e6


@dataclass(frozen=True, slots=True)
class Replica:
    """What a worker loads once. texts: what its callers send, one at a time, over and over."""

    model: ModelSettings
    engine: EngineSettings
    dtype: str
    num_threads: int
    texts: Encoded
    target_p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """What a worker is asked to do, again and again."""

    max_batch_tokens: int
    n_callers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a run. latencies_s: float32 [n], of every text answered; n_failed: those that
    were not."""

    latencies_s: Float32
    elapsed_s: float
    n_failed: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The replica could not be loaded."""

    reason: str


def work(replica: Replica, parent: Connection) -> None:
    """Answers every `Run` with a `Load`; first says None when loaded, or `Failed`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print; the table is the parent's
    os.dup2(1, 2)
    try:
        named = {"name": "torch", "dtype": replica.dtype}
        settings = Settings(model=replica.model, engine=replica.engine.model_copy(update=named))
        thread = ModelThread()
        engine = thread.wait_for(lambda: load_engine(settings, replica.num_threads))
    except Exception as exc:
        parent.send(Failed(type(exc).__name__))
        return
    parent.send(None)
    try:
        while True:
            run: Run = parent.recv()
            batcher = TokenBatcher(
                engine.predict,
                max_batch_tokens=run.max_batch_tokens,
                max_queue_tokens=1_000_000_000,
                target_p99_ms=replica.target_p99_ms,
                run=thread,
            )
            parent.send(asyncio.run(put_under_load(batcher, replica.texts.split(), run)))
    except (EOFError, BrokenPipeError):
        return  # the parent has what it wanted


async def put_under_load(batcher: TokenBatcher, texts: list[Encoded], run: Run) -> Load:
    """`run.n_callers` callers in a closed loop, each with one text at a time."""
    next_text = itertools.cycle(texts)
    patience = np.full(1, _PATIENCE_S, np.float32)
    answered: list[tuple[float, float]] = []
    n_failed = 0

    async def ask() -> None:
        nonlocal n_failed
        started = time.perf_counter()
        logits = await batcher.submit(next(next_text), patience)
        ended = time.perf_counter()
        if logits.errors:
            n_failed += 1
        else:
            answered.append((ended, ended - started))

    async def call(until: float, at_least: int, at_most_until: float) -> None:
        while (now := time.perf_counter()) < until or (
            len(answered) + n_failed < at_least and now < at_most_until
        ):
            await ask()

    await asyncio.gather(*(ask() for _ in range(run.n_callers)))  # to warm up
    answered.clear()
    n_failed = 0
    begun = time.perf_counter()
    limits: tuple[Any, ...] = (
        begun + run.seconds,
        2 * run.n_callers,
        begun + MAX_EXTENSION * run.seconds,
    )
    await asyncio.gather(*(call(*limits) for _ in range(run.n_callers)))
    latencies = np.asarray([latency for _, latency in answered], np.float32)
    return Load(latencies, time.perf_counter() - begun, n_failed)
