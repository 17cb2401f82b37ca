"""Text classification as Ray Serve's documentation puts it together: four deployments in a chain.

One text per call; `@serve.batch` on the model; each result handed on as a `DeploymentResponse`
(docs.ray.io, "Deploy Compositions of Models"). Runs in the project's own environment.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import ray
import torch
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

DTYPE = os.environ["PEER_DTYPE"]
# Serve warns where a replica may not have as many requests as a batch holds, and says to raise
# this; the default is 5. PEER_RAY_DEFAULTS=1 leaves it there.
LIMITS = {} if os.environ.get("PEER_RAY_DEFAULTS") else {"max_ongoing_requests": 256}
# Four replicas on two cores: a default of one CPU each would never be scheduled.
OPTIONS: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0.1}, **LIMITS}


@serve.deployment(**OPTIONS)
class Tokenizer:
    def __init__(self) -> None:
        if DTYPE != "none":
            from bert import MAX_LENGTH, MODEL_DIR
            from transformers import AutoTokenizer

            self.max_length = MAX_LENGTH
            self.tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)

    def __call__(self, text: str) -> list[int]:
        if DTYPE == "none":
            return [0]
        return self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]


@serve.deployment(**OPTIONS)
class Model:
    def __init__(self) -> None:
        if DTYPE != "none":
            from bert import Bert

            self.bert = Bert()

    # The size that the issue names; 0.01 s is Serve's default wait.
    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
    async def __call__(self, batch: list[list[int]]) -> list[list[float]]:
        if DTYPE == "none":
            return [[0.0]] * len(batch)
        inputs = self.bert.tokenizer.pad({"input_ids": batch}, return_tensors="pt")
        return self.bert.predict(inputs).tolist()


@serve.deployment(**OPTIONS)
class Postprocessor:
    def __init__(self) -> None:
        if DTYPE != "none":
            from bert import MODEL_DIR
            from transformers import AutoConfig

            self.labels = AutoConfig.from_pretrained(MODEL_DIR).id2label

    def __call__(self, logits: list[float]) -> dict[str, Any]:
        if DTYPE == "none":
            return {"label": "null", "score": 1.0}
        score, index = torch.softmax(torch.tensor(logits), dim=-1).max(dim=-1)
        return {"label": self.labels[int(index)], "score": float(score)}


@serve.deployment(**OPTIONS)
class Ingress:
    def __init__(
        self, tokenizer: DeploymentHandle, model: DeploymentHandle, postprocessor: DeploymentHandle
    ) -> None:
        self.tokenizer, self.model, self.postprocessor = tokenizer, model, postprocessor

    async def __call__(self, request: Request) -> dict[str, Any]:
        text = (await request.json())["text"]
        token_ids = self.tokenizer.remote(text)
        logits = self.model.remote(token_ids)
        return await self.postprocessor.remote(logits)


if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(
        Ingress.bind(Tokenizer.bind(), Model.bind(), Postprocessor.bind()),
        route_prefix="/classify",
    )
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
