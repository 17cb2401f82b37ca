"""How each server is asked for the labels of some texts, and where its answer says them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Texts = Sequence[str]
Json = Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A way of asking. path: where, with `{model}` where the URL names one.

    body: texts → JSON; labels: JSON of a 200 answer → the best label of each text. It raises
    LookupError, TypeError or ValueError where the answer is another server's.
    """

    path: str
    body: Callable[[Texts], dict[str, Json]]
    labels: Callable[[Json], list[str]]
    has_model_field: bool = False


def _best(rows: Json) -> str:
    """The label of the highest score, of `[{"label", "score"}, …]`."""
    return str(max(rows, key=lambda row: row["score"])["label"])


def _one_or_many(texts: Texts) -> Json:
    return texts[0] if len(texts) == 1 else list(texts)


def _ours(answer: Json) -> list[str]:
    return [str(row["label"]) for row in (answer if isinstance(answer, list) else [answer])]


def _tei(answer: Json) -> list[str]:
    return [_best(row) for row in answer]


def _sagemaker(answer: Json) -> list[str]:
    return [str(row["label"]) if isinstance(row, dict) else _best(row) for row in answer]


def _named(answer: Json) -> list[str]:
    """KServe's and Vertex AI's predictions: objects with a label, or the bare label."""
    return [str(row["label"] if isinstance(row, dict) else row) for row in answer["predictions"]]


def _oip(answer: Json) -> list[str]:
    outputs = answer["outputs"]
    tensor = next((one for one in outputs if one["name"] == "label"), outputs[0])
    return [str(label[0] if isinstance(label, list) else label) for label in tensor["data"]]


def _moderations(answer: Json) -> list[str]:
    scores = [row["category_scores"] for row in answer["results"]]
    return [str(max(row, key=row.__getitem__)) for row in scores]


DIALECTS: Mapping[str, Asked] = {
    "ours": Asked("/classify", lambda texts: {"text": _one_or_many(texts)}, _ours),
    "tei": Asked("/predict", lambda texts: {"inputs": [[text] for text in texts]}, _tei),
    "vllm": Asked(
        "/classify",
        lambda texts: {"input": list(texts)},
        lambda answer: [str(row["label"]) for row in answer["data"]],
        has_model_field=True,
    ),
    "infinity": Asked(
        "/classify",
        lambda texts: {"input": list(texts)},
        lambda answer: [_best(row) for row in answer["data"]],
        has_model_field=True,
    ),
    "kserve": Asked("/v1/models/{model}:predict", lambda texts: {"instances": list(texts)}, _named),
    "oip": Asked(
        "/v2/models/{model}/infer",
        lambda texts: {
            "inputs": [
                {
                    "name": "text",
                    "shape": [len(texts), 1],
                    "datatype": "BYTES",
                    "data": list(texts),
                }
            ]
        },
        _oip,
    ),
    "sagemaker": Asked("/invocations", lambda texts: {"inputs": list(texts)}, _sagemaker),
    "vertex": Asked("/vertex/predict", lambda texts: {"instances": list(texts)}, _named),
    "openai": Asked(
        "/v1/moderations",
        lambda texts: {"input": list(texts)},
        _moderations,
        has_model_field=True,
    ),
}
"""The dialects that the service speaks, by the names of `args.dialects.spoken`; `ours` too."""
