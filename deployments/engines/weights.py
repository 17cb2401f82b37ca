"""What a file of weights holds beside what the classifier reads: harmless, or a reason to refuse.

transformers leaves such weights out and says so in a log. Left out below the encoder, the model is
another one than was trained.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from deployments.model.source import ModelNotFound

# Pattern of a name → what it is, and why a classifier gives the same answers without it.
_HARMLESS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"^(\w+\.)?pooler\.(dense\.)?(weight|bias)$"),
        "a pooler: the class's head reads the encoder without one",
    ),
    (
        re.compile(r"(^|\.)(position_ids|token_type_ids|rotary_emb\.inv_freq)$"),
        "numbers that the class computes itself",
    ),
    (
        re.compile(r"(^|\.)attn\.(masked_)?bias$|(^|\.)attention\.(masked_)?bias$"),
        "masks that the class computes itself",
    ),
    (
        re.compile(
            r"^(cls|lm_head|lm_loss|mlm|generator_\w+|generator|discriminator_predictions"
            r"|vocab_\w+|predictions|sop_classifier|seq_relationship|mask_predictions"
            r"|embeddings_project_out|final_logits_bias|decoder_head|pred_layer)\b"
        ),
        "a head of pre-training, which classifies no texts",
    ),
    (
        re.compile(r"^(loss|loss_fct|loss_fn|criterion|class_weights?)\b"),
        "weights of a loss, which only training reads",
    ),
    (re.compile(r"(^|\.)num_batches_tracked$"), "a counter of training"),
)
_HINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"lora_|base_layer|modules_to_save|\badapters?\b|prefix_encoder"),
        "They are an adapter's: merge it first (peft: model.merge_and_unload()) and save that.",
    ),
    (
        re.compile(r"scale|zero|qweight|qzeros|g_idx|absmax|quant|packed|SCB|_inv$"),
        "They are a quantisation's, without which the weights are wrong: save the model in "
        "float32, float16 or bfloat16.",
    ),
    (
        re.compile(r"distance_embedding"),
        "They are relative positions (position_embedding_type), which this transformers no longer "
        "computes: use a model with absolute positions.",
    ),
    (
        re.compile(r"\.\d+\."),
        "config.json may name fewer layers than were trained (num_hidden_layers): correct it.",
    ),
)
_FLOATING = {"F64", "F32", "F16", "BF16"}
_OTHERWISE = "config.json is made for another model: fetch or save the model again."
# Heads whose weights have the names of a text classifier's, or those of pre-training.
_OTHER_TASKS = re.compile(
    r"For(TokenClassification|QuestionAnswering|MultipleChoice|NextSentencePrediction"
    r"|ImageClassification|AudioClassification|VideoClassification|SpeechClassification"
    r"|NamedEntityRecognition|EntityClassification|EntityPairClassification"
    r"|EntitySpanClassification|RewardModel\w*|Retrieval|SentenceEmbedding)$"
)


def left_out(
    unexpected: Iterable[str], base_prefix: str, base_parts: Collection[str], model: str
) -> tuple[str, ...]:
    """A sentence for each kind of weights that the class doesn't read, and why that is harmless.

    base_prefix: of the encoder's weights, as in `bert.`. base_parts: how their names begin where
    the encoder was saved alone.

    Raises:
        ModelNotFound: they may be part of what was trained.
    """
    kinds: dict[str, list[str]] = {}
    for name in sorted(unexpected):
        kind = next((why for pattern, why in _HARMLESS if pattern.search(name)), None)
        if kind is None:
            raise ModelNotFound(_refusal(name, sorted(unexpected), base_prefix, base_parts, model))
        kinds.setdefault(kind, []).append(name)
    return tuple(
        f"Left out of the weights: {names[0]}{_more(names)}, {kind}."
        for kind, names in kinds.items()
    )


def misfit(entry: Any, n: int, model: str) -> str:
    """What to say of a tensor of another shape than the class has for it.

    entry: as transformers reports it: a name, and the shapes in the file and in the class.
    """
    name, *shapes = entry if isinstance(entry, tuple | list) else (entry,)
    told = ""
    if len(shapes) == 2:
        told = f" has the shape {list(shapes[0])}, where config.json makes it {list(shapes[1])}"
    more = f" ({n - 1} more don't fit either)" if n > 1 else ""
    head = re.search(r"classifier|score|out_proj|logits_proj|summary", str(name))
    cure = (
        "id2label in config.json must name as many labels as the weights have rows."
        if head
        else "Find the config.json that it was trained with, or save the model again."
    )
    return f"the weights of {model!r} are made for another config.json: {name}{told}{more}. {cure}"


def lacking(missing: list[str], unexpected: Iterable[str], base_prefix: str, model: str) -> str:
    """What to say of weights that the class has and the files haven't."""
    first, odd = missing[0], sorted(unexpected)
    said = f"the weights of {model!r} have no {first}{_more(missing)}"
    for prefix in ("module.", "_orig_mod.", "model.", "base_model.model.", "transformer."):
        if f"{prefix}{first}" in odd:
            return (
                f"{said}, but {prefix}{first}: they were saved from a wrapper. Save what it "
                f"wraps: load them, take {prefix!r} off every name, and save the model again."
            )
    for name in odd:
        for pattern, cure in _HINTS[:3]:
            if pattern.search(name):
                return f"{said}, and hold {name}, which the class doesn't read. {cure}"
    if any(name.startswith(f"{base_prefix}.") for name in missing):
        return (
            f"{said}: config.json names more of the encoder than was saved, or another one "
            "(model_type, num_hidden_layers). Correct it, or fetch the model again."
        )
    return (
        f"{said}: it is not trained to classify and would answer at random. Set args.model.id to "
        "one that is."
    )


def refuse_whole_numbers(source: str, model: str) -> None:
    """Weights kept in 8 bits, or as whole numbers, mean nothing without the scales that belong to
    them; transformers takes them as they are.

    Raises:
        ModelNotFound: there are such in a directory's safetensors.
    """
    folder = Path(source)
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - no dict
                kind = file.get_slice(name).get_dtype()
                if name.endswith((".weight", ".bias")) and kind not in _FLOATING:
                    raise ModelNotFound(
                        f"the weights of {model!r} hold {name} as {kind}: without its scale that "
                        "is not what was trained. Save the model in float32, float16 or bfloat16; "
                        "args.engine.dtype: int8 quantises it here."
                    )


def refuse_other_task(architectures: object, runs_as: str, model: str) -> str | None:
    """What to say of a config.json that names another class than the one that runs; mostly nothing.

    Raises:
        ModelNotFound: it was trained for another task than classifying texts.
    """
    listed = [architectures] if isinstance(architectures, str) else architectures
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    if not names or runs_as in names:
        return None
    for name in names:
        if _OTHER_TASKS.search(name):
            raise ModelNotFound(
                f"{model!r} is a {name}, by architectures in its config.json: its weights have "
                f"the names of a text classifier's, its answers would mean nothing. "
                f"Set args.model.id to a …ForSequenceClassification, or correct the file."
            )
    return f"config.json names {names[0]}; its weights are exactly those of {runs_as}, which runs."


def _refusal(
    name: str, unexpected: list[str], base_prefix: str, base_parts: Collection[str], model: str
) -> str:
    first = name.split(".", 1)[0]
    below = name.startswith(f"{base_prefix}.") or first in base_parts
    hint = next((cure for pattern, cure in _HINTS if pattern.search(name)), _OTHERWISE)
    return (
        f"the weights of {model!r} hold {name}{_more(unexpected)}, which "
        f"{'the encoder' if below else 'the class'} that config.json names doesn't read: without "
        f"them it is not the model that was trained. {hint}"
    )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
