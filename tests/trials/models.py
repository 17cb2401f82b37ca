"""Models to update to: unfit ones, and ones that disagree about every text, so that a mix shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from deployments.local import LocalClassifier
from scripts.bench.models import DEMO

OUTLIER = 1e4
READS_HIDDEN_STATES = (
    *(f"self.{part}.weight" for part in ("query", "key", "value")),
    "intermediate.dense.weight",
    "pooler.dense.weight",
)
BEFORE = "before"
NEAR = 1e-3
_ENGINE = {"name": "torch", "device": "cpu", "dtype": "float32"}
TEXTS = [
    *(f"第 {number} 条评论：质量很好，下次再来。" for number in range(12)),
    *(f"{number} 分，太差了，再也不买" for number in range(12)),
    *("物流很快，包装也用心。" * n for n in (2, 4, 8)),  # longer than the shortest limit here
    "good",
]


class Unfit(NamedTuple):
    """A model that can't be served in that dtype, and what the status must say of it."""

    place: Path
    says: str
    dtype: str = "auto"


def unfit_models(folder: Path) -> dict[str, Unfit]:
    """Copies of the demo model, written below `folder`, by what is wrong with them."""
    weights = load_file(DEMO / "model.safetensors")
    cut_off = Path(shutil.copytree(DEMO, folder / "cut-off"))
    whole = (DEMO / "model.safetensors").read_bytes()
    (cut_off / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    outlying = Path(shutil.copytree(DEMO, folder / "outlying"))
    save_file(with_outlier(weights), outlying / "model.safetensors", metadata={"format": "pt"})
    return {
        "that is not there": Unfit(folder / "nothing", "nothing"),
        "whose weights end in the middle": Unfit(cut_off, "is cut short"),
        "of weights that are no numbers": Unfit(
            without_numbers(folder, DEMO), "gives no finite number"
        ),
        "that int8 is too coarse for": Unfit(outlying, "logits are off by", "int8"),
    }


def with_outlier(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same function in float32, and none in int8.

    A huge first value of every hidden state, which nothing reads and which is gone before the next
    norm: int8 scales each state by its largest value, so the others round to 0.
    """
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    for name, tensor in changed.items():
        if name.endswith("LayerNorm.bias"):
            tensor[0] += OUTLIER
        elif name.endswith("output.dense.bias"):
            tensor[0] -= OUTLIER
        elif name.endswith(READS_HIDDEN_STATES):
            tensor[:, 0] = 0.0
    return changed


@dataclass(frozen=True, slots=True)
class Disagreeing:
    """A model, and what it answers to each of `TEXTS`, asked alone in a process without Ray."""

    place: Path
    answers: dict[str, dict[str, Any]]

    def gave(self, text: str, answer: dict[str, Any]) -> bool:
        """Whether the answer is this model's, in its labels, scores, tokens and cut."""
        own = self.answers[text]
        if answer["label"] != own["label"] or answer["scores"].keys() != own["scores"].keys():
            return False
        if (answer["tokens"], answer["truncated"]) != (own["tokens"], own["truncated"]):
            return False
        if answer.get("labels") != own.get("labels"):
            return False
        return all(abs(answer["scores"][name] - s) < NEAR for name, s in own["scores"].items())


def disagreeing_models(folder: Path) -> dict[str, Disagreeing]:
    """By what tells each from the one that stands under `BEFORE`."""
    made = {
        BEFORE: _model(folder / "before", 0),
        "same labels": _model(folder / "same", 1),
        "rows and names swapped": _model(folder / "swapped", 0, _swap_rows, labels=("good", "bad")),
        "other labels": _model(folder / "other", 2, labels=("price", "quality")),
        "more labels": _model(folder / "more", 3, labels=("a", "b", "c", "d")),
        "another vocabulary": _model(folder / "vocabulary", 4, _mix_vocabulary),
        "another max_length": _model(folder / "length", 5, max_position_embeddings=16),
        "another problem type": _model(
            folder / "multi", 6, problem_type="multi_label_classification"
        ),
    }
    found = {}
    for kind, place in made.items():
        with LocalClassifier({"model": {"id": str(place)}, "engine": _ENGINE}) as local:
            answers = {text: local.classify(text) for text in TEXTS}
        found[kind] = Disagreeing(place, answers)  # type: ignore[arg-type]
    return found


def without_weights(folder: Path, model: Path) -> Path:
    """A copy that has all that labels and tokens are read from, and no weights: a look at the files
    tells."""
    copied = Path(shutil.copytree(model, folder / "without-weights"))
    for weights in copied.glob("*.safetensors"):
        weights.unlink()
    return copied


def without_numbers(folder: Path, model: Path) -> Path:
    """A copy that computes NaN, which only a replica finds."""
    copied = Path(shutil.copytree(model, folder / "without-numbers"))
    weights = load_file(model / "model.safetensors")
    bad = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}
    save_file(bad, copied / "model.safetensors", metadata={"format": "pt"})
    return copied


def _model(
    place: Path,
    seed: int,
    change: Callable[[Path], None] | None = None,
    labels: tuple[str, ...] = ("bad", "good"),
    **config: Any,
) -> Path:
    """A small random BERT with the demo's tokenizer, far from indifferent about any text."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(labels)),
    }
    BertForSequenceClassification(BertConfig(**{**shape, **config})).save_pretrained(place)
    tokenizer.save_pretrained(place)
    if change is not None:
        change(place)
    return place


def _swap_rows(place: Path) -> None:
    """With its names swapped too it answers as before: only a mix answers differently."""
    weights = load_file(place / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].flip(0).contiguous()
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})


def _mix_vocabulary(place: Path) -> None:
    """Each word has another word's id; the marks keep theirs."""
    file = place / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    marks = {token["content"] for token in tokenizer["added_tokens"]}
    vocabulary = tokenizer["model"]["vocab"]
    words = [word for word in vocabulary if word not in marks]
    ids = [vocabulary[word] for word in words]
    vocabulary |= dict(zip(words, reversed(ids), strict=True))
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
