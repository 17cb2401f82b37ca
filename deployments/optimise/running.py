"""A candidate in a process of its own: labels, latency, throughput, memory.

Its own, so that memory is that of one model, and a model that dies ends nobody else.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from deployments.pipeline.tasks.text_classification import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
)

BATCH = 256
LATENCY_TEXTS = 300
_LATENCY_S = 20.0
_THROUGHPUT_S = 3.0


class CandidateFailed(Exception):
    """It gave nothing to compare. The message says why."""


@dataclass(frozen=True, slots=True)
class Speed:
    """p50_ms, p99_ms: of one text alone, one after the other. texts_per_s: in lists of `BATCH`.

    memory_mb: the most that its whole process held, in MB (10^6 bytes).
    """

    p50_ms: float
    p99_ms: float
    texts_per_s: float
    memory_mb: float
    n_latencies: int


@dataclass(frozen=True, slots=True)
class Ran:
    """What a candidate said. predicted: for each text a label, a list of them or a number, by the
    problem; None where it had no answer.

    labels: all that it can give. engine: what ran it, in words.
    """

    predicted: list[Any]
    labels: tuple[str, ...]
    engine: str
    speed: Speed


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits of all texts. logits: by text, then by label; NaN where a text had no answer."""

    logits: list[list[float]]
    labels: tuple[str, ...]
    problem_type: str = SINGLE_LABEL


def run_model(
    model: str, engine: dict[str, Any], texts: Sequence[str], problem: str = SINGLE_LABEL
) -> Ran:
    """Raises CandidateFailed."""
    ran: Ran = apart(_run_model, model, engine, list(texts), problem)
    return ran


def score_texts(model: str, engine: dict[str, Any], texts: Sequence[str]) -> Scored:
    """Raises CandidateFailed."""
    scored: Scored = apart(_score_texts, model, engine, list(texts))
    return scored


def speed_of(model: str, engine: dict[str, Any], texts: Sequence[str]) -> Speed:
    """Of a model of any task. Raises CandidateFailed."""
    speed: Speed = apart(_speed_of, model, engine, list(texts))
    return speed


def run_baseline(pipeline: Any, texts: Sequence[str]) -> Speed:
    """Speed of a fitted pipeline of scikit-learn, in a process of its own as a model's is."""
    speed: Speed = apart(_run_baseline, pipeline, list(texts))
    return speed


def apart(work: Callable[..., Any], *args: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _quiet) as pool:
        try:
            return pool.submit(work, *args).result()
        except BrokenProcessPool:
            raise CandidateFailed("its process died (out of memory?).") from None


def _quiet() -> None:
    """Libraries print; the terminal is the parent's."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)


_FIELDS = {SINGLE_LABEL: "label", MULTI_LABEL: "labels", REGRESSION: "score"}
_CURES = {
    SINGLE_LABEL: "Leave --label-separator and --regression out",
    MULTI_LABEL: "Give --label-separator",
    REGRESSION: "Give --regression",
}
"""What `rayclassify evaluate` wants to hear of such a model."""


def _run_model(model: str, engine: dict[str, Any], texts: list[str], problem: str) -> Ran:
    with loaded(model, engine, tuple(_FIELDS)) as classifier:
        if (own := classifier.loaded.parts.info.problem_type) != problem:
            raise CandidateFailed(
                f"it is a {own} model; here only {problem}. {_CURES[own]} to compare such models."
            )
        answers, speed = timed(classifier.classify, texts)
        runs = classifier.loaded.engine.info()
        return Ran(
            [answer.get(_FIELDS[problem]) for answer in answers],
            classifier.loaded.parts.info.labels,
            f"{runs.engine} {runs.dtype} on {runs.device}, {runs.num_threads} threads",
            speed,
        )


def _speed_of(model: str, engine: dict[str, Any], texts: list[str]) -> Speed:
    with loaded(model, engine, (SINGLE_LABEL, MULTI_LABEL, REGRESSION)) as classifier:
        return timed(classifier.classify, texts)[1]


def _score_texts(model: str, engine: dict[str, Any], texts: list[str]) -> Scored:
    with loaded(model, engine, (SINGLE_LABEL, MULTI_LABEL)) as classifier:
        labels = classifier.loaded.parts.info.labels
        logits = []
        for part in parts_of(texts):
            answers: Any = classifier.classify(part, raw_scores=True)
            for answer in answers:
                scores = answer.get("scores", {})
                logits.append([scores.get(label, math.nan) for label in labels])
        return Scored(logits, labels, classifier.loaded.parts.info.problem_type)


@contextmanager
def loaded(
    model: str, engine: dict[str, Any], problems: Sequence[str] = (SINGLE_LABEL,)
) -> Iterator[Any]:
    from deployments.engines.loaded import REFUSALS
    from deployments.local import LocalClassifier

    try:
        classifier = LocalClassifier({"model": {"id": model}, "engine": engine})
    except REFUSALS as exc:
        raise CandidateFailed(" ".join(str(exc).split())) from None
    with classifier:
        problem = classifier.loaded.parts.info.problem_type
        if problem not in problems:
            raise CandidateFailed(f"it is a {problem} model; here only {' and '.join(problems)}.")
        yield classifier


def _run_baseline(pipeline: Any, texts: list[str]) -> Speed:
    return timed(pipeline.predict, texts)[1]


def timed(classify: Callable[[list[str]], Any], texts: Sequence[str]) -> tuple[list[Any], Speed]:
    """What `classify` answers to all texts, and how fast it was."""
    parts = parts_of(texts)
    answers = [answer for part in parts for answer in classify(part)]  # warms up, too
    latencies_ms: list[float] = []
    begun = time.perf_counter()
    for text in islice(cycle(texts), LATENCY_TEXTS):
        started = time.perf_counter()
        classify([text])
        ended = time.perf_counter()
        latencies_ms.append((ended - started) * 1e3)
        if ended - begun > _LATENCY_S:
            break
    n_texts, begun = 0, time.perf_counter()
    for part in cycle(parts):
        classify(part)
        n_texts += len(part)
        if (elapsed_s := time.perf_counter() - begun) > _THROUGHPUT_S:
            break
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
    return answers, Speed(
        float(p50_ms),
        float(p99_ms),
        n_texts / elapsed_s,
        _peak_memory_bytes() / 1e6,
        len(latencies_ms),
    )


def parts_of(texts: Sequence[str]) -> list[list[str]]:
    return [list(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]


def _peak_memory_bytes() -> int:
    """The most this process held; what it holds now where the system does not say."""
    # getrusage's figure is inherited from the parent, so it would be the parent's size.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    return int(psutil.Process().memory_info().rss)
