"""Replicas of one setup, started together, and what they give under load together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from deployments.pipeline.types import Encoded
from deployments.settings import EngineSettings, ModelSettings
from deployments.tuning.choice import Result, Setup
from deployments.tuning.worker import Failed, Load, Replica, Run, work

_LOAD_TIMEOUT_S = 300.0
_ANSWER_TIMEOUT_S = 300.0
_EXIT_TIMEOUT_S = 3.0


class SetupFailed(Exception):
    """The setup gave nothing to measure. The message says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The same for all setups. n_callers: in all replicas together."""

    model: ModelSettings
    engine: EngineSettings
    texts: Encoded
    n_callers: int
    target_p99_ms: float | None


class Replicas:
    """Workers that are loaded and wait."""

    def __init__(self, workers: list[Connection], n_callers: int) -> None:
        self._workers = workers
        self._n_callers = n_callers

    def measure(self, setup: Setup, seconds: float) -> Result:
        """Raises `SetupFailed`."""
        shares = np.diff(np.linspace(0, self._n_callers, len(self._workers) + 1).astype(int))
        for worker, share in zip(self._workers, shares, strict=True):
            worker.send(Run(setup.max_batch_tokens, max(1, int(share)), seconds))
        loads: list[Load] = [_answer(worker, _ANSWER_TIMEOUT_S) for worker in self._workers]
        latencies_ms = np.concatenate([load.latencies_s for load in loads]) * 1e3
        if not len(latencies_ms):
            raise SetupFailed("the model failed on every text")
        p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
        return Result(
            setup,
            texts_per_s=sum(len(load.latencies_s) / load.elapsed_s for load in loads),
            p50_ms=float(p50_ms),
            p99_ms=float(p99_ms),
            n_texts=len(latencies_ms),
        )


@contextmanager
def replicas_of(setup: Setup, load: Workload) -> Iterator[Replicas]:
    """Starts the setup's replicas, and ends them. Raises `SetupFailed`."""
    context = multiprocessing.get_context("spawn")
    replica = Replica(
        load.model,
        load.engine,
        setup.dtype,
        setup.num_threads,
        load.texts,
        load.target_p99_ms,
    )
    workers: list[Connection] = []
    processes = []
    try:
        for _ in range(setup.replicas):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(replica, theirs), daemon=True)
            process.start()
            processes.append(process)
            workers.append(ours)
            theirs.close()
        for worker in workers:
            _answer(worker, _LOAD_TIMEOUT_S)
        yield Replicas(workers, load.n_callers)
    finally:
        for worker in workers:
            worker.close()
        for process in processes:
            process.join(_EXIT_TIMEOUT_S)
            process.kill()  # some runtimes hang in their destructors
            process.join()


def _answer(worker: Connection, timeout_s: float) -> Load:
    try:
        if not worker.poll(timeout_s):
            raise SetupFailed(f"no answer within {timeout_s:g} s")
        answer = worker.recv()
    except (EOFError, OSError):
        raise SetupFailed("its process died (out of memory?)") from None
    if isinstance(answer, Failed):
        raise SetupFailed(f"does not load ({answer.reason})")
    return answer  # type: ignore[no-any-return]
