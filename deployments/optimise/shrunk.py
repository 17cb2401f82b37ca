"""A smaller model beside the one that it was made of: how good, how like it, how big, how fast."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deployments.optimise.distilling import agreement
from deployments.optimise.finetuning import Task, score
from deployments.optimise.running import CandidateFailed, Speed, speed_of
from deployments.optimise.statistics import scores
from deployments.pipeline.tasks.text_classification import SINGLE_LABEL

_SPEED_TEXTS = 256


@dataclass(frozen=True, slots=True)
class Beside:
    """original, smaller: what each is judged by, with its interval where it has one, in words.

    kept: the smaller one's share of the original's figure. size_bytes: of the weights on disk.
    speeds: of both, alone on this machine in processes of their own; None where one did not run.
    """

    metric: str
    original: str
    smaller: str
    kept: float
    agreement: float
    size_bytes: tuple[int, int]
    speeds: tuple[Speed, Speed] | None

    @property
    def faster(self) -> float | None:
        """How many times as many texts a second."""
        if self.speeds is None:
            return None
        return self.speeds[1].texts_per_s / self.speeds[0].texts_per_s

    def rows(self) -> list[tuple[str, str, str]]:
        """What, of the original, of the smaller one."""
        before, after = (f"{n / 1e6:.1f} MB" for n in self.size_bytes)
        rows = [(self.metric, self.original, self.smaller), ("weights on disk", before, after)]
        if self.speeds is not None:
            one, other = self.speeds
            rows += [
                ("texts/s, lists of 256", f"{one.texts_per_s:,.0f}", f"{other.texts_per_s:,.0f}"),
                ("one text, p50", f"{one.p50_ms:.1f} ms", f"{other.p50_ms:.1f} ms"),
                ("memory", f"{one.memory_mb:,.0f} MB", f"{other.memory_mb:,.0f} MB"),
            ]
        return rows

    def figures(self) -> list[tuple[str, str]]:
        """The same for a card."""
        rows = [(f"{what}, of the original", one) for what, one, _ in self.rows()]
        rows += [(what, other) for what, _, other in self.rows()]
        rows += [("share of the original's figure", f"{self.kept:.2%}")]
        rows += [("agreement with the original", f"{self.agreement:.2%}")]
        if self.faster is not None:
            rows.append(("times as many texts/s", f"{self.faster:.2f}"))
        return rows


def beside(
    original: str,
    smaller: Path,
    logits: tuple[np.ndarray, np.ndarray],
    gold: np.ndarray,
    task: Task,
    texts: Sequence[str],
    engine: dict[str, Any] | None,
    other_engine: dict[str, Any] | None = None,
) -> Beside:
    """logits: of both, on the rows that `gold` labels. engine: as `args.engine`, of both; None
    measures no speeds."""
    metric, first = score(logits[0], gold, task)
    second = score(logits[1], gold, task)[1]
    speeds = None
    some = list(texts[:_SPEED_TEXTS])
    if engine is not None:
        other = other_engine or engine
        with suppress(CandidateFailed):
            speeds = speed_of(original, engine, some), speed_of(str(smaller), other, some)
    return Beside(
        metric,
        _said(logits[0], gold, task, first),
        _said(logits[1], gold, task, second),
        second / first if first > 0 else float("nan"),
        agreement(*logits, task),
        (_size_bytes(Path(original)), _size_bytes(smaller)),
        speeds,
    )


def _said(logits: np.ndarray, gold: np.ndarray, task: Task, value: float) -> str:
    if task.problem_type != SINGLE_LABEL:
        return f"{value:.4f}"
    found = scores(gold, logits.argmax(1), logits.shape[1]).macro_f1
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def _size_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))
