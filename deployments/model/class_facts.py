"""What a model's class knows and its config.json need not say: defaults, tables, what it takes.

The class is built without memory for its weights. Needs transformers and torch, so it runs where
`reading` does.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import sys
from dataclasses import dataclass
from typing import Any

from deployments.model.config_json import refuse_quantization, said, shown
from deployments.model.source import ModelRefused, find_model
from deployments.settings import ModelSettings

logger = logging.getLogger(__name__)

# Under these names classes keep a row for each position of a text, and for each type of a token.
_POSITION_TABLES = {
    *("position_embeddings", "embed_positions", "positions_embed", "char_position_embeddings"),
    *("wpe", "pos_embeddings"),
}
_TYPE_TABLE = "token_type_embeddings"
_OF_PICTURES = ("vision", "visual")
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """Of the class that transformers would load, under this config.

    max_positions: how long a text may be; None where nothing bounds it. takes_types: its forward
    has token_type_ids. type_rows: how many types its table knows; None where it has no table.
    vocabulary: rows of its word embedding; None where it can't be told. remarks: what of
    config.json was left aside.
    """

    max_positions: int | None
    takes_types: bool
    type_rows: int | None
    vocabulary: int | None
    remarks: tuple[str, ...] = ()


def class_facts(settings: ModelSettings, raw: dict[str, Any]) -> ClassFacts:
    """raw: config.json as it stands.

    Raises:
        ModelRefused: transformers reads no text classifier from it, or drops what it says.
    """
    refuse_quantization(raw)
    config = _config(settings, raw)
    model = _without_weights(config, settings)
    _refuse_position_type(raw, config, model)
    table = _named_limit(config)
    if model is None:
        return ClassFacts(table, takes_types=True, type_rows=None, vocabulary=None)
    rows = _position_rows(model)
    return ClassFacts(
        max_positions=min(filter(None, (table, rows)), default=None),
        takes_types="token_type_ids" in inspect.signature(model.forward).parameters,
        type_rows=_type_rows(config, model),
        vocabulary=_vocabulary(model),
    )


def _config(settings: ModelSettings, raw: dict[str, Any]) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    coded = "auto_map" in raw
    kind = raw.get("model_type")
    try:
        config = AutoConfig.from_pretrained(
            find_model(settings.id),
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
        )
    except Exception as exc:
        logger.warning("transformers can't read the config", exc_info=exc)
        if coded and not settings.trust_remote_code:
            raise ModelRefused(
                said(
                    "config.json",
                    "auto_map",
                    "the name of code that comes with the model",
                    "a model_type that transformers knows",
                    "If you trust who wrote that code, set args.model.trust_remote_code: true.",
                )
            ) from None
        detail = f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
        raise ModelRefused(
            said(
                "config.json",
                "model_type",
                shown(kind),
                "a model that the installed transformers knows, with keys that fit it",
                f"transformers says: {detail}",
            )
        ) from None
    known = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if not known and not (coded and settings.trust_remote_code):
        raise ModelRefused(
            said(
                "config.json",
                "model_type",
                shown(kind),
                "one of which transformers has a class ForSequenceClassification",
                "Set args.model.id to a text classifier.",
            )
        )
    return config


def _without_weights(config: Any, settings: ModelSettings) -> Any:
    """The model without its numbers; None where its class can't be made so."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(
                config, trust_remote_code=settings.trust_remote_code
            )
    except Exception as exc:  # loading it may still do, or says what is wrong
        logger.info("the class can't be looked at before it is loaded (%s)", type(exc).__name__)
        return None


def _refuse_position_type(raw: dict[str, Any], config: Any, model: Any) -> None:
    """transformers 5 took relative positions out of BERT and its kin, and says nothing."""
    named = raw.get("position_embedding_type")
    if named is None or named == "absolute":
        return
    modules = {type(config).__module__, type(model).__module__} - {"builtins"}
    read = any("position_embedding_type" in _source(name) for name in modules if "model" in name)
    if not read:
        raise ModelRefused(
            said(
                "config.json",
                "position_embedding_type",
                shown(named),
                '"absolute", as the installed transformers has no other for this class',
                "Train it with absolute positions, or set args.model.id to another model.",
            )
        )


def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return ""


def _named_limit(config: Any) -> int | None:
    """What the config says, by names that its class knows: others are leftovers."""
    text = config.get_text_config()
    known = {field.name for field in dataclasses.fields(text)} if _is_dataclass(text) else None
    found = []
    for name in _LIMITS:
        value = getattr(text, name, None)
        ours = known is None or name in known
        if ours and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found.append(value)
    return min(found, default=None)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(type(value))


def _position_rows(model: Any) -> int | None:
    limits = []
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in _POSITION_TABLES or _of_pictures(name):
            continue
        rows = _rows(module)
        if rows is None:
            continue
        offset = getattr(module, "offset", None)  # BART's positions begin at 2
        padding = getattr(module, "padding_idx", None)  # RoBERTa's behind that of padding
        if isinstance(offset, int):
            rows -= offset
        elif isinstance(padding, int):
            rows -= padding + 1
        limits.append(rows)
    return min(limits, default=None)


def _type_rows(config: Any, model: Any) -> int | None:
    rows = [
        _rows(module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == _TYPE_TABLE and not _of_pictures(name)
    ]
    found = [n for n in rows if n is not None]
    if not found and getattr(config, "type_vocab_size", None) == 0:
        return 0  # DeBERTa takes types, and does nothing with them
    return min(found, default=None)


def _vocabulary(model: Any) -> int | None:
    try:
        return _rows(model.get_input_embeddings())
    except Exception:  # CANINE hashes characters
        return None


def _rows(module: Any) -> int | None:
    weight: Any = getattr(module, "weight", None)
    return int(weight.shape[0]) if getattr(weight, "ndim", 0) == 2 else None


def _of_pictures(name: str) -> bool:
    return any(word in name for word in _OF_PICTURES)
