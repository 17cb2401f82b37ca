"""The model as transformers' own documentation calls it: pad to the longest of the batch.

Shared by the peers that leave the model to the user. Runs in each peer's own environment, so it
imports torch and transformers only. Texts over the model's limit are truncated, silently.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL_DIR = os.environ["PEER_MODEL_DIR"]
DTYPE = os.environ["PEER_DTYPE"]  # "float32", "bfloat16", or "none": a null model
NUM_THREADS = int(os.environ["OMP_NUM_THREADS"])
MAX_LENGTH = 512
NULL_ANSWER = {"label": "null", "score": 1.0}


class Bert:
    """texts → encode → predict → answers, one call each, so that a chain may part them."""

    def __init__(self) -> None:
        torch.set_num_threads(NUM_THREADS)
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
        model = AutoModelForSequenceClassification.from_pretrained(MODEL_DIR)
        self.model = model.to(getattr(torch, DTYPE)).eval()
        self.labels = model.config.id2label

    def encode(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )

    @torch.inference_mode()
    def predict(self, inputs: Any) -> Any:
        """Logits, float32 [texts, labels]."""
        return self.model(**inputs).logits.float()

    def answers(self, logits: Any) -> list[dict[str, Any]]:
        scores, indices = torch.softmax(logits, dim=-1).max(dim=-1)
        return [
            {"label": self.labels[index], "score": score}
            for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
        ]

    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.answers(self.predict(self.encode(texts)))
