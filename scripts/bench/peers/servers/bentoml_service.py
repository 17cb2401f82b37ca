"""BERT behind BentoML with adaptive batching, as docs.bentoml.com "Adaptive batching" shows.

A latency limit that no batch here reaches, because what would pass it is answered with 503
(same page, "Error handling").
"""

from __future__ import annotations

import os
from typing import Any

import bentoml

DTYPE = os.environ["PEER_DTYPE"]


@bentoml.service(
    workers=int(os.environ["PEER_WORKERS"]),
    traffic={"timeout": 120},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Classifier:
    def __init__(self) -> None:
        if DTYPE != "none":
            from bert import Bert

            self.bert = Bert()

    @bentoml.api(
        batchable=True,
        max_batch_size=int(os.environ["PEER_MAX_BATCH_SIZE"]),
        max_latency_ms=60_000,
    )
    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        if DTYPE == "none":
            return [{"label": "null", "score": 1.0}] * len(texts)
        return self.bert.classify(texts)
