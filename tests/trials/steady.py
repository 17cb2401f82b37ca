"""Steady load of texts that occur once each, with known labels; every answer is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import count, pairwise

from deployments.bench.client import RIGHT, Answer, Asked, Load, Question, post
from deployments.model.load import load_parts
from deployments.pipeline.types import TextInput
from deployments.settings import ModelSettings

# At each of these characters a FaultyEngine does what its name says.
RAISES, NOT_A_NUMBER, NO_MEMORY, HANGS, KILLS, SLOW = "错", "空", "爆", "停", "死", "慢"


class _Ids:
    """Token ids as the service sees them."""

    def __init__(self) -> None:
        self._encoder = load_parts(ModelSettings()).encoder()

    def all(self, text: str) -> list[int]:
        ids: list[int] = self._encoder.encode([TextInput(text)]).batch.input_ids.tolist()
        return ids

    def ids(self, text: str) -> list[int]:
        """Without the marks around a text."""
        return self.all(text)[1:-1]


@cache
def encoder() -> _Ids:
    return _Ids()


def text_of(number: int) -> str:
    return f"第 {number} 条评论：质量很好，下次再来。"


def label_of(text: str) -> str:
    """What FaultyEngine says of a text."""
    return ("negative", "positive")[sum(encoder().all(text)) % 2]


def question(text: str) -> Question:
    """Asks a text whose label FaultyEngine knows."""

    def judge(answer: Answer) -> str:
        if answer.status != 200:
            return answer.said
        return RIGHT if answer.json()["label"] == label_of(text) else "wrong"

    return Question(post(json.dumps({"text": text}).encode()), judge)


@dataclass
class Seen:
    """What became of the requests. outcomes: `right`, `wrong`, `500 code`, or `lost …`."""

    rows: list[Asked]
    outcomes: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.outcomes = Counter(one.outcome for one in self.rows)

    @property
    def asked(self) -> int:
        return self.outcomes.total()

    @property
    def not_right(self) -> dict[str, int]:
        return {what: n for what, n in sorted(self.outcomes.items()) if what != RIGHT}

    @property
    def longest_gap_s(self) -> float:
        """Between two right answers."""
        times = sorted(one.answered_s or 0.0 for one in self.rows if one.outcome == RIGHT)
        return max((b - a for a, b in pairwise(times)), default=0.0)

    @property
    def slowest_s(self) -> float:
        return max((one.took_s for one in self.rows), default=0.0)

    def __str__(self) -> str:
        others = ", ".join(f"{n} {what}" for what, n in self.not_right.items())
        return (
            f"{self.outcomes[RIGHT]} of {self.asked} right{', ' + others if others else ''}; "
            f"longest gap {self.longest_gap_s:.1f} s, slowest answer {self.slowest_s:.1f} s"
        )


def steady_load(url: str, rate_per_s: float = 30.0) -> Load:
    """Asks so many times a second from entry to exit."""
    questions = (question(text_of(number)) for number in count())
    return Load(url, questions, (number / rate_per_s for number in count()))


def ask(url: str, *texts: str) -> list[str]:
    """What became of these texts, asked at once."""
    return [one.outcome for one in Load(url, map(question, texts)).run()]
