"""Whether a peer answers what transformers answers: a set-up that is wrong is no comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deployments.bench.client import Answer, Endpoint, Load, Question

AT_ONCE = 16  # so that batches form
TIMEOUT_S = 120.0


def expected_labels(model_dir: Path, texts: Sequence[str]) -> list[str]:
    """Labels of the model in float32, one text at a time: no padding, nothing of a server."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForSequenceClassification.from_pretrained(model_dir).float().eval()
    labels = []
    with torch.inference_mode():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
            labels.append(model.config.id2label[int(model(**inputs).logits.argmax())])
    return labels


def labels_by(endpoint: Endpoint, texts: Sequence[str]) -> list[str]:
    """The label that the endpoint gives each text, or what came in its place."""

    def judge(answer: Answer) -> str:
        if answer.status != 200:
            return f"status {answer.status}"
        return endpoint.label_of(answer.body)

    questions = [Question(endpoint.request(text), judge, str(i)) for i, text in enumerate(texts)]
    asked = Load(endpoint.url, questions, connections=AT_ONCE, timeout_s=TIMEOUT_S).run()
    return [one.outcome for one in sorted(asked, key=lambda one: int(one.kind))]
