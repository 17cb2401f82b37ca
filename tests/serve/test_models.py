"""Models of every kind through the whole chain, against transformers' own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Config, Service, deployment, read_config

pytestmark = pytest.mark.slow

TEXTS = ["很好", "太差了", "mixed 中文 and English 😀", "好" * 200]
INPUTS = [{"text": text} for text in TEXTS]


def serving(model: Path) -> Config:
    config = read_config()
    config["applications"][0]["args"]["model"]["id"] = str(model)
    config["applications"][0]["args"]["engine"] |= {"name": "torch", "dtype": "float32"}
    return config


def reference(model: Path, inputs: list[dict[str, str]]) -> list[dict[str, float]]:
    """Label → score of every input, by transformers' TextClassificationPipeline."""
    from transformers import pipeline

    classify = pipeline("text-classification", str(model), top_k=None, device="cpu")
    answers = [classify(item, truncation=True, max_length=64) for item in inputs]
    return [{one["label"]: one["score"] for one in answer} for answer in answers]


def test_a_model_that_is_not_there_is_said_and_the_old_one_serves_on(service: Service) -> None:
    from ray import serve
    from running import wait_until

    service.deploy(read_config())
    config = read_config()
    config["applications"][0]["args"]["model"]["id"] = "./no/such/model"
    service.submit(config)

    def refused() -> str | None:
        app = serve.status().applications["classify"]
        told = [app.message, *(d.message for d in app.deployments.values())]
        return next((m for m in told if "no model in './no/such/model'" in m), None)

    message = wait_until(refused, "the refusal")
    assert "Set args.model.id to a model directory or a hub id." in message
    assert service.post({"text": "很好"}).json()["label"] == "positive"


def damaged(model: Path) -> Path:
    """Its weights end in the middle."""
    (file,) = model.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1_000])
    return model


def test_a_broken_model_is_not_rolled_out_and_fails_no_request(
    service: Service, make_tiny_model: Callable[..., Path]
) -> None:
    from ray import serve
    from running import wait_until

    service.deploy(read_config())
    service.submit(serving(damaged(make_tiny_model())))
    statuses: list[int] = []

    def refused() -> bool:
        statuses.append(service.post({"text": "很好"}).status_code)
        app = serve.status().applications["classify"]
        return any(
            "is damaged" in m for m in (app.message, *(d.message for d in app.deployments.values()))
        )

    wait_until(refused, "the refusal")
    statuses += [service.post({"text": "很好"}).status_code for _ in range(20)]
    assert set(statuses) == {200}


@pytest.fixture(scope="module")
def multi_label(make_tiny_model: Callable[..., Path]) -> Path:
    return make_tiny_model(
        problem_type="multi_label_classification",
        id2label={0: "price", 1: "service", 2: "shipping"},
        initializer_range=0.5,
    )


def test_multi_label_scores_and_a_threshold_changed_live(
    service: Service, multi_label: Path
) -> None:
    config = serving(multi_label)
    service.deploy(config)
    replicas = {name: service.replica_pids(name) for name in ("Classifier", "Postprocessor")}
    expected = reference(multi_label, INPUTS)

    def labels_over(limit: float, **options: Any) -> None:
        answers = service.post({"text": TEXTS, **options}).json()
        for answer, scores in zip(answers, expected, strict=True):
            assert answer["scores"] == pytest.approx(scores, abs=1e-4)
            assert set(answer["labels"]) == {k for k, v in scores.items() if v >= limit}

    labels_over(0.5)
    labels_over(0.1, threshold=0.1)  # of one request
    deployment(config, "Postprocessor")["user_config"]["threshold"] = 0.9
    service.deploy(config)
    labels_over(0.9)
    assert service.get("/info").json()["postprocessing"]["threshold"] == 0.9
    assert replicas == {name: service.replica_pids(name) for name in replicas}


def test_regression_of_texts_and_of_pairs(
    service: Service, make_tiny_model: Callable[..., Path]
) -> None:
    model = make_tiny_model(
        num_labels=1, problem_type="regression", id2label={0: "stars"}, initializer_range=0.5
    )
    service.deploy(serving(model))
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, reversed(TEXTS), strict=True)]
    for inputs in (INPUTS, pairs):
        body = {field: [one[field] for one in inputs] for field in inputs[0]}
        for answer, scores in zip(service.post(body).json(), reference(model, inputs), strict=True):
            assert answer["label"] == "stars"
            assert answer["score"] == pytest.approx(scores["stars"], abs=1e-4)
