"""Well-behaved clients: good texts whose labels are known, asked all the while."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

from deployments.bench.client import RIGHT, Answer, Load, Question, post
from scripts.bench.models import DEMO

MAX_SCORE_DRIFT = 1e-3
_WORDS = (
    "很好", "不错", "差", "服务", "房间", "早餐", "价格", "位置", "干净", "太", "吵", "推荐",
    "失望", "满意", "书", "内容", "质量", "一般", "再也", "不会", "来", "喜欢",
)  # fmt: skip
_BATCH = 64

Known = dict[str, tuple[str, float]]
"""Text → its label and score."""


def known_texts(count: int) -> Known:
    """So many different texts, read by transformers in this process, in float32."""
    return labelled(made_texts(random.Random(64), count, 12))


def made_texts(rng: random.Random, count: int, max_words: int) -> list[str]:
    """Different texts of two words to fewer than `max_words`."""
    return [
        f"{''.join(rng.choices(_WORDS, k=rng.randrange(2, max_words)))}{i}" for i in range(count)
    ]


def labelled(texts: Sequence[str]) -> Known:
    """What the demo model says of them, by transformers in this process, in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    model = AutoModelForSequenceClassification.from_pretrained(DEMO, dtype=torch.float32).eval()
    calibration = json.loads((DEMO / "calibration.json").read_text(encoding="utf-8"))
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


def guests(url: str, known: Known, texts: Iterable[str], connections: int) -> Load:
    """Asks these texts, each of `known`, over connections that ask again when answered."""

    def question(text: str, request_id: str) -> Question:
        def judge(answer: Answer) -> str:
            if answer.status != 200:
                return f"status {answer.status}"
            if answer.headers.get("x-request-id") != request_id:
                return "the answer of another request"
            told, (label, score) = answer.json(), known[text]
            if abs(told["score"] - score) > MAX_SCORE_DRIFT or (
                told["label"] != label and score > 0.5 + MAX_SCORE_DRIFT
            ):
                return f"{told['label']} {told['score']:.4f} where {label} {score:.4f} is right"
            return RIGHT

        return Question(post(json.dumps({"text": text}).encode(), request_id=request_id), judge)

    questions = (question(text, f"guest-{number}") for number, text in enumerate(texts))
    return Load(url, questions, connections=connections)


def faults_of(load: Load) -> list[str]:
    """What guests got that was not the right label and score of their text, under its own id."""
    return [f"guest: {one.outcome}" for one in load.asked if one.outcome != RIGHT]
