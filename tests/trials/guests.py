"""Well-behaved clients: good texts whose labels are known, asked all the while."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from scripts.bench.machine import ROOT

from .raw_http import BrokenAnswer, Connection, post

MAX_SCORE_DRIFT = 1e-3
_WORDS = [
    "很好",
    "不错",
    "差",
    "服务",
    "房间",
    "早餐",
    "价格",
    "位置",
    "干净",
    "太",
    "吵",
    "推荐",
    "失望",
    "满意",
    "书",
    "内容",
    "质量",
    "一般",
    "再也",
    "不会",
    "来",
    "喜欢",
]
_CLIENTS = 4
_BATCH = 64


def known_texts(count: int) -> dict[str, tuple[str, float]]:
    """So many different texts → label and score, by transformers in this process, in float32."""
    rng = random.Random(64)
    return labelled(made_texts(rng, count, 12))


def made_texts(rng: random.Random, count: int, max_words: int) -> list[str]:
    """Different texts of two words to fewer than `max_words`."""
    return [
        f"{''.join(rng.choices(_WORDS, k=rng.randrange(2, max_words)))}{i}" for i in range(count)
    ]


def labelled(texts: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Text → label and score of the demo model, by transformers in this process, in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/demo")
    model = AutoModelForSequenceClassification.from_pretrained(
        ROOT / "models/demo", dtype=torch.float32
    ).eval()
    calibration = json.loads((ROOT / "models/demo/calibration.json").read_text(encoding="utf-8"))
    temperature = float(calibration["temperature"])
    known = {}
    for first in range(0, len(texts), _BATCH):
        batch = texts[first : first + _BATCH]
        with torch.inference_mode():
            encoded = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            scores = (model(**encoded).logits / temperature).softmax(-1)
        for text, (score, index) in zip(
            batch, zip(*(row.tolist() for row in scores.max(-1)), strict=True), strict=True
        ):
            known[text] = (model.config.id2label[index], score)
    return known


class Guests:
    """Threads that ask until the `with` block ends; with `rounds`, each text so often and no more.

    faults: what was not the right label and score of the text that was asked, under its own id.
    """

    def __init__(
        self,
        port: int,
        known: dict[str, tuple[str, float]],
        clients: int = _CLIENTS,
        rounds: int | None = None,
    ) -> None:
        self.asked = self.answers = 0
        self.faults: list[str] = []
        self._port, self._known, self._rounds = port, known, rounds
        self._lock, self._end = threading.Lock(), threading.Event()
        texts = list(known)
        self._threads = [
            threading.Thread(target=self._run, args=(k, texts[k::clients])) for k in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._rounds is None or exc is not None:
            self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: int, texts: list[str]) -> None:
        connection = Connection(self._port)
        done = 0
        while not self._end.is_set() and (self._rounds is None or done < self._rounds):
            for number, text in enumerate(texts):
                if self._end.is_set():
                    break
                fault = self._ask(connection, text, f"guest-{client}-{done}-{number}")
                with self._lock:
                    self.asked += 1
                    self.answers += fault is None
                    if fault is not None:
                        self.faults.append(f"guest: {fault}")
                if fault is not None:
                    connection.close()
                    connection = Connection(self._port)
            done += 1
        connection.close()

    def _ask(self, connection: Connection, text: str, request_id: str) -> str | None:
        connection.send(post(json.dumps({"text": text}).encode(), request_id=request_id))
        try:
            answer = connection.receive()
        except (OSError, BrokenAnswer) as exc:
            return f"{type(exc).__name__}: {exc}"
        if answer is None:
            return "closed without an answer"
        if answer.status != 200:
            return f"status {answer.status}"
        if answer.headers.get("x-request-id") != request_id:
            return "the answer of another request"
        told, (label, score) = json.loads(answer.body), self._known[text]
        if abs(told["score"] - score) > MAX_SCORE_DRIFT or (
            told["label"] != label and score > 0.5 + MAX_SCORE_DRIFT
        ):
            return f"{told['label']} {told['score']:.4f} where {label} {score:.4f} is right"
        return None
