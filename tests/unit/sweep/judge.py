"""One class held against transformers' own pipeline: scores, text by text."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from classes import CannotBuild, build
from vocabularies import WORDS

from deployments.engines.loaded import REFUSALS
from deployments.local import LocalClassifier

BOUNDS = {"float32": 2e-4, "bfloat16": 0.02, "int8": 0.1}
"""Largest difference of a score from transformers' own in float32."""

_LONG = " ".join(WORDS)
SINGLE = (
    "good",
    "a",
    "the food was good",
    "terrible service never again, the screen broke!",
    "很好 质量 不错 again 😀",
    " ".join(WORDS[:20]),
    " ".join(WORDS[10:40]),
    _LONG,
    f"{_LONG} never {_LONG} again {_LONG}",
)
PAIRS = (
    ("the room", "was it clean?"),
    ("good", "I would buy this book again and again"),
    (" ".join(WORDS[:12]), "why"),
    (_LONG, "the food"),
    (f"{_LONG} {_LONG}", f"{_LONG} good {_LONG}"),
)

Scores = dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """What became of one class.

    held: (engine, dtype) whose scores are within `BOUNDS`. refused: (engine, dtype) → the message.
    wrong: what was neither; empty where all is well. fails_on: texts that transformers itself can't
    answer. remarks: of `EngineInfo`, in float32.
    """

    model_type: str
    name: str
    batching: str = "-"
    pairs: bool = False
    held: tuple[tuple[str, str], ...] = ()
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    not_built: str | None = None
    fails_on: int = 0
    remarks: tuple[str, ...] = ()


def judge(model_type: str, directory: Path, name: str) -> Verdict:
    """Builds the class and tries every engine and dtype."""
    try:
        name = build(model_type, directory).__name__
    except CannotBuild as exc:
        return Verdict(model_type, name, not_built=str(exc))
    expected = plain(directory)
    held, wrong, refused = [], [], {}
    batching, remarks = "-", ()
    for engine, dtype in [("torch", dtype) for dtype in BOUNDS]:
        try:
            answers, info = ours(directory, engine, dtype)
        except REFUSALS as exc:
            refused[engine, dtype] = str(exc)
            continue
        if (engine, dtype) == ("torch", "float32"):
            batching, remarks = info.batching, info.remarks
        far = furthest(answers, expected)
        if far <= BOUNDS[dtype]:
            held.append((engine, dtype))
        else:
            wrong.append(f"{engine} {dtype} is off by {far:.2g}")
    return Verdict(
        model_type,
        name,
        batching,
        pairs=all(scores is not None for scores in expected[len(SINGLE) :]),
        held=tuple(held),
        refused=refused,
        wrong=tuple(wrong),
        fails_on=expected.count(None),
        remarks=remarks,
    )


def ours(directory: Path, engine: str, dtype: str) -> tuple[list[Scores | None], Any]:
    """Scores of all texts and pairs; None for one that failed. And the EngineInfo.

    Raises:
        one of REFUSALS: the start is refused.
    """
    args = {
        "model": {"id": str(directory)},
        "engine": {"name": engine, "dtype": dtype, "device": "cpu", "num_threads": 1},
    }
    with LocalClassifier(args) as local:
        answers = local.classify(list(SINGLE))
        first, second = (list(halves) for halves in zip(*PAIRS, strict=True))
        answers += local.classify(first, second)
        return [answer.get("scores") for answer in answers], local.loaded.engine.info()


def plain(directory: Path) -> list[Scores | None]:
    """transformers' own pipeline, text by text, each by a model that has met no other."""
    pipe = transformers.pipeline(
        "text-classification", str(directory), top_k=None, device="cpu", dtype=torch.float32
    )
    untouched = pipe.model
    answers: list[Scores | None] = []
    for item in [{"text": t} for t in SINGLE] + [{"text": a, "text_pair": b} for a, b in PAIRS]:
        pipe.model = copy.deepcopy(untouched)
        try:
            answers.append({o["label"]: o["score"] for o in pipe(item, truncation=True)})
        except Exception:
            answers.append(None)
    return answers


def furthest(answers: list[Scores | None], expected: list[Scores | None]) -> float:
    """Largest difference of a score; infinite where one has no answer that the other gives."""
    far = 0.0
    for got, want in zip(answers, expected, strict=True):
        if want is None:
            continue
        if got is None or got.keys() != want.keys():
            return float("inf")
        far = max(far, *(abs(got[label] - want[label]) for label in want))
    return far
