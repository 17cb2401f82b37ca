"""Models of a real size with random weights: speed depends on the shape, not on what they know."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from .machine import ROOT

CACHE = ROOT / "build" / "bench"
DEMO = ROOT / "models" / "demo"
SEED = 20_261_125
LABELS = {0: "negative", 1: "positive"}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the cost of a BERT depends on, its vocabulary aside."""

    name: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    labels: int = 2

    @property
    def title(self) -> str:
        return f"{self.name} ({self.layers} × {self.hidden})"


BERT_BASE = Shape("BERT-base", 12, 768, 12, 3_072)
MINILM = Shape("MiniLM", 6, 384, 12, 1_536)
SHAPES = {"bert-base": BERT_BASE, "minilm": MINILM}


def model_dir(shape: Shape, cache: Path = CACHE) -> Path:
    """The directory of a model of this shape, made at the first call. Tokenizer: the demo's."""
    made = cache / "models" / shape.name.lower()
    recipe = made / "recipe.json"
    wanted = json.dumps({**asdict(shape), "seed": SEED})
    if recipe.exists() and recipe.read_text(encoding="utf-8") == wanted:
        return made
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    shutil.rmtree(made, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        id2label=LABELS,
        label2id={name: i for i, name in LABELS.items()},
        num_labels=shape.labels,
    )
    torch.manual_seed(SEED)
    model = BertForSequenceClassification(config)
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    recipe.write_text(wanted, encoding="utf-8")  # last: what stands before it is complete
    return made
