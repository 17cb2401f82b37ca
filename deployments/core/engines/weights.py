"""What a file of weights holds beside what the classifier reads: harmless, or a reason to refuse.

transformers leaves such weights out and says so in a log. Left out below the encoder, the model is
another one than was trained.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from deployments.core.model_source import ModelNotFound

# Pattern of a name → what it is, and why a classifier gives the same answers without it.
_HARMLESS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(^|\.)pooler\.(dense\.)?(weight|bias)$"),
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


def refuse_other_task(architectures: object, runs_as: str, model: str) -> str | None:
    """What to say of a config.json that names another class than the one that runs; mostly nothing.

    Raises:
        ModelNotFound: it was trained for another task than classifying texts.
    """
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
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
