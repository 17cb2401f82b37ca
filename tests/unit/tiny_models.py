"""Small random models of any class, and what transformers' own pipeline answers with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from deployments.local import LocalClassifier

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
TEXTS = (
    "the food was good",
    "terrible service, never again!",
    "good",
    "很好 mixed 😀",
    "why " * 12,
)
PAIRS = ("is it?", "the room", "never again", "好", "delivery")
TOLERANCE = 2e-4
_CORPUS = (
    *(
        "the food was good and the room was clean",
        "terrible service never again",
        "is it? delivery",
    ),
    *(
        "很好 质量不错",
        "太差了 再也不买",
        "why would anyone buy this",
        "the screen broke after a day",
    ),
    "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 . , ! ?",
)


@cache
def _trained(kind: str) -> str:
    """Once each: training breaks ties by chance."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    trainer: Any
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=marks)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=marks, initial_alphabet=alphabet
        )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    text: str = tokenizer.to_str()
    return text


def wordpiece(**said: Any) -> Any:
    """A BERT tokenizer; `said` goes to tokenizer_config.json."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(_trained("wordpiece"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")],
    )
    marks = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **(marks | {"model_max_length": 512} | said)
    )


def byte_pairs(**said: Any) -> Any:
    """A RoBERTa tokenizer."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(_trained("byte pairs"))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    marks = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **(marks | {"model_max_length": 512} | said)
    )


def build(
    directory: Path,
    kind: str = "Bert",
    tokenizer: Any = None,
    shape: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A random model of transformers' class `kind`ForSequenceClassification, saved."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = tokenizer or wordpiece()
    base = {**(SHAPE if shape is None else shape), "vocab_size": len(tokenizer)}
    if tokenizer.pad_token_id is not None:
        base["pad_token_id"] = tokenizer.pad_token_id
    settings = getattr(transformers, f"{kind}Config")(**(base | config))
    model = getattr(transformers, f"{kind}ForSequenceClassification")(settings)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def edit(directory: Path, file: str = "config.json", drop: Sequence[str] = (), **new: Any) -> Path:
    """Changes keys of a JSON file of the model, as somebody's editor would."""
    path = directory / file
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept = {key: value for key, value in content.items() if key not in drop}
    path.write_text(json.dumps(kept | new), encoding="utf-8")
    return directory


def ours(
    directory: Path, texts: Sequence[str], pairs: Sequence[str] | None = None, **model: Any
) -> list[dict[str, Any]]:
    """Answers of the service's chain, in float32."""
    args = {
        "model": {"id": str(directory), **model},
        "engine": {"name": "torch", "dtype": "float32", "num_threads": 1},
    }
    with LocalClassifier(args) as local:
        answers: Any = local.classify(list(texts), text_pair=pairs and list(pairs))
    return list(answers)


def theirs(
    directory: Path,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    max_length: int | None = None,
) -> list[dict[str, float]]:
    """Scores of transformers' own text-classification pipeline, text by text."""
    import torch
    import transformers

    pipeline: Callable[..., Any] = transformers.pipeline(
        "text-classification", str(directory), top_k=None, device="cpu", dtype=torch.float32
    )
    cut = {"truncation": True} | ({} if max_length is None else {"max_length": max_length})
    items = [
        {"text": text} if pairs is None else {"text": text, "text_pair": pairs[i]}
        for i, text in enumerate(texts)
    ]
    return [{str(o["label"]): o["score"] for o in pipeline(item, **cut)} for item in items]


def assert_same(answers: Sequence[dict[str, Any]], scores: Sequence[dict[str, float]]) -> None:
    """Every label's score is the pipeline's."""
    assert len(answers) == len(scores)
    for answer, expected in zip(answers, scores, strict=True):
        assert "error" not in answer, answer
        assert answer["scores"].keys() == expected.keys()
        for label, score in expected.items():
            assert abs(answer["scores"][label] - score) < TOLERANCE
