"""A model's directory as transformers reads it: all but the weights, checked, proven, made plain.

transformers brings torch with it, seconds and 200 MB, so processes that need neither let another
one read for them; see `read_apart`.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.model import config_json as model_config
from deployments.model import files as model_files
from deployments.model.class_facts import ClassFacts, class_facts
from deployments.model.source import (
    ModelNotFound,
    ModelRefused,
    find_model,
    own_words,
    read_config,
)
from deployments.model.tokenizer_parity import PROVEN_LENGTH, prove_parity
from deployments.pipeline.drift import BadBaseline, baseline_of
from deployments.pipeline.parts import ModelParts
from deployments.pipeline.tokenize import TypeIds
from deployments.pipeline.types import Calibration, ModelInfo
from deployments.settings import ModelSettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

# Where neither class nor tokenizer knows a limit, BERT's own; args.model.max_length may raise it.
DEFAULT_MAX_LENGTH = 512
_UNLIMITED = 2**31 - 1


def read(settings: ModelSettings) -> ModelParts:
    """The model's parts, without a fingerprint.

    Raises:
        ModelNotFound, ModelRefused: a file is missing, or says what can't be honoured.
    """
    model_files.refuse_faults(settings)
    info, facts, remarks = read_info(settings)
    tokenizer = auto_tokenizer(settings)
    backend = _backend(tokenizer, settings)
    max_length, about_length = _max_length(settings, facts, tokenizer.model_max_length)
    type_ids, about_types = _type_ids(tokenizer, facts, settings)
    parts = ModelParts(
        fingerprint="",
        info=replace(info, max_length=max_length),
        tokenizer=_serialized(backend, tokenizer, settings),
        type_ids=type_ids,
        split_special_tokens=bool(tokenizer.split_special_tokens),
        remarks=(*remarks, *about_length, *about_types, *_about_vocabulary(backend, facts)),
    )
    return _proven(parts, tokenizer)


def read_info(
    settings: ModelSettings,
) -> tuple[ModelInfo, ClassFacts, tuple[str, ...]]:
    """What config, class, calibration and tokenizer_config.json say, and what was left aside.

    Raises:
        ModelNotFound, ModelRefused: as `read`.
    """
    raw = read_config(settings)
    labels = model_config.labels_of(raw)
    problem_type = model_config.problem_type_of(raw, len(labels))
    temperature, calibration, about_calibration = _calibration(settings, raw, len(labels))
    facts = class_facts(settings, raw)
    max_length, _ = _max_length(settings, facts, model_files.named_tokenizer_limit(settings))
    info = ModelInfo(
        model=settings.id,
        revision=settings.revision,
        labels=labels,
        problem_type=problem_type,
        max_length=max_length,
        temperature=temperature,
        calibration=calibration,
        drift=_drift(settings, labels),
    )
    return info, facts, about_calibration


def auto_tokenizer(settings: ModelSettings) -> Any:
    """transformers' own tokenizer.

    Raises:
        ModelRefused: it can't be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            find_model(settings.id),
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
        )
    except Exception as exc:
        logger.warning("transformers can't read the tokenizer", exc_info=exc)
        if _wants_sentencepiece(settings):
            raise ModelRefused(
                f"the tokenizer of model {settings.id!r} is a sentencepiece model (*.model), with "
                "no tokenizer.json beside it. Where the package sentencepiece is installed, load "
                "it with AutoTokenizer and save it again, which writes tokenizer.json; or "
                "install sentencepiece here."
            ) from None
        raise ModelRefused(
            f"the tokenizer of model {settings.id!r} can't be read ({type(exc).__name__}): its "
            "files are missing, damaged, or of a kind that the installed transformers doesn't "
            "know. Save it anew beside the weights (tokenizer.json, tokenizer_config.json)."
        ) from None


def _wants_sentencepiece(settings: ModelSettings) -> bool:
    source = Path(find_model(settings.id))
    if not source.is_dir() or (source / "tokenizer.json").exists():
        return False
    return any(source.glob("*.model")) and find_spec("sentencepiece") is None


def load_tokenizer(settings: ModelSettings) -> Tokenizer:
    """The Rust tokenizer behind transformers' AutoTokenizer; it knows the side that is cut.

    Raises:
        ModelRefused: the model has a Python tokenizer only, or none.
    """
    tokenizer = auto_tokenizer(settings)
    backend = _backend(tokenizer, settings)
    # It stands in tokenizer_config.json only; TextEncoder reads it from here.
    backend.enable_truncation(_UNLIMITED, direction=tokenizer.truncation_side)
    return backend


def _backend(tokenizer: Any, settings: ModelSettings) -> Tokenizer:
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelRefused(
            f"model {settings.id!r} has no fast tokenizer ({type(tokenizer).__name__} is written "
            "in Python). Save one with it (tokenizer.json; transformers' convert_slow_tokenizer "
            "makes it)."
        )
    # What transformers makes where it finds no files: a tokenizer that knows [UNK] and its like.
    if backend.get_vocab_size() <= len(backend.get_added_tokens_decoder()):
        raise ModelRefused(
            f"model {settings.id!r} has no vocabulary. Save its tokenizer beside the weights "
            "(tokenizer.json)."
        )
    dropout = getattr(backend.model, "dropout", None)
    if dropout:
        raise ModelRefused(
            model_config.said(
                "tokenizer.json",
                "model.dropout",
                f"{dropout:.3g}",
                "null: with it a text has other tokens each time, and other scores",
                "It is for training; write null.",
            )
        )
    return backend


def _serialized(backend: Tokenizer, tokenizer: Any, settings: ModelSettings) -> str:
    from tokenizers import Tokenizer

    try:
        copy = Tokenizer.from_str(backend.to_str())
    except Exception as exc:
        logger.warning("the tokenizer can't be written down", exc_info=exc)
        raise ModelRefused(
            f"the tokenizer of model {settings.id!r} ({type(tokenizer).__name__}) has parts that "
            "are written in Python, which can't be carried to other processes. Set args.model.id "
            "to a model with a plain tokenizer.json."
        ) from None
    copy.no_padding()
    copy.enable_truncation(_UNLIMITED, direction=tokenizer.truncation_side)
    text: str = copy.to_str()
    return text


def _drift(settings: ModelSettings, labels: tuple[str, ...]) -> str | None:
    """What drift.json holds, of a directory; a hub's models have none."""
    if not Path(find_model(settings.id)).is_dir():
        return None
    found = model_files.read_optional("drift.json", settings)
    if found is None:
        return None
    text = json.dumps(found, sort_keys=True)
    try:
        baseline_of(text, labels)
    except BadBaseline as exc:
        raise ModelRefused(
            f"drift.json: {exc}. Make it again with `rayclassify baseline`, or delete the file."
        ) from None
    return text


def _calibration(
    settings: ModelSettings, raw: dict[str, Any], n_labels: int
) -> tuple[float, Calibration, tuple[str, ...]]:
    remarks: tuple[str, ...] = ()
    if "temperature" in raw:
        remarks = (
            "config.json: `temperature` is ignored: it is a setting of text generation, or of "
            "an old calibration. Calibration is read from calibration.json and from "
            "args.model.temperature.",
        )
    found = model_files.read_optional("calibration.json", settings)
    if found is None:
        return settings.temperature or 1.0, Calibration(), remarks
    temperature, calibration = model_config.calibration_of(found)
    if calibration.platt is not None and len(calibration.platt) != n_labels:
        raise ModelRefused(
            f"calibration.json: `platt` holds {len(calibration.platt)} pairs; the model has "
            f"{n_labels} labels. Calibrate again, or delete the file."
        )
    if settings.temperature not in (None, temperature) and calibration != Calibration():
        # The rest was fitted to scores of that temperature.
        calibration = Calibration()
        remarks += (
            "calibration.json: all is ignored, as args.model.temperature is another than its own.",
        )
    return settings.temperature or temperature, calibration, remarks


def _max_length(
    settings: ModelSettings, facts: ClassFacts, tokenizer_limit: Any
) -> tuple[int, tuple[str, ...]]:
    trained = model_config.tokenizer_limit_of(tokenizer_limit)
    limit, asked = facts.max_positions, settings.max_length
    if asked is not None and limit is not None and asked > limit:
        raise ModelRefused(
            f"args.model.max_length is {asked}; the model's limit is {limit}. "
            "Lower it or leave it null."
        )
    if asked is not None:
        return asked, ()
    known = [n for n in (limit, trained) if n is not None]
    if known:
        return min(known), ()
    return DEFAULT_MAX_LENGTH, (
        f"No file says how long a text may be: {DEFAULT_MAX_LENGTH} tokens are read. Set "
        "args.model.max_length to what the model was trained for.",
    )


def _type_ids(
    tokenizer: Any, facts: ClassFacts, settings: ModelSettings
) -> tuple[TypeIds, tuple[str, ...]]:
    try:
        given = tokenizer("a b", text_pair="a b").get("token_type_ids")
    except Exception as exc:
        logger.warning("the tokenizer reads no pair", exc_info=exc)
        raise ModelRefused(
            f"the tokenizer of model {settings.id!r} ({type(tokenizer).__name__}) can't be given "
            f"two plain texts ({type(exc).__name__}): it is made for other input. Set "
            "args.model.id to a model that classifies texts."
        ) from None
    if given is None:
        return "none", ()
    if not facts.takes_types:
        return "none", ("The tokenizer's token types are left out: the model's class takes none.",)
    rows = facts.type_rows
    if rows is None:
        return "always", ()
    if rows == 0:
        return "none", ()
    if max(given) < rows:
        return "where_not_zero", ()
    if rows == 1:
        return "none", (
            "The tokenizer's token types are left out: the model has one type, for all tokens.",
        )
    raise ModelRefused(
        model_config.said(
            "config.json",
            "type_vocab_size",
            str(rows),
            f"{max(given) + 1} or more, as the tokenizer gives tokens types up to {max(given)}",
            "Save the tokenizer that the model was trained with.",
        )
    )


def _about_vocabulary(backend: Tokenizer, facts: ClassFacts) -> tuple[str, ...]:
    size, rows = backend.get_vocab_size(), facts.vocabulary
    if rows is None or size <= rows:
        return ()
    return (
        f"The tokenizer knows {size} tokens and the model {rows}: a text with one of the others "
        "gets an error.",
    )


def _proven(parts: ModelParts, tokenizer: Any) -> ModelParts:
    limit = parts.info.max_length
    parts.encoder()  # whether there is room for a text at all
    short = replace(parts, info=replace(parts.info, max_length=min(limit, PROVEN_LENGTH)))
    try:
        encoder = short.encoder()
    except ValueError:
        encoder = parts.encoder()  # its marks alone are more than that
    compared = prove_parity(tokenizer, encoder, typed=parts.type_ids != "none")
    return replace(parts, texts_proven=compared)


def _main() -> None:
    """Reads settings from stdin, answers on stdout: {"parts"} or {"refused", "found"}."""
    import os

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between
    settings = ModelSettings.model_validate(json.load(sys.stdin))
    try:
        with own_words(settings.id):
            answer: dict[str, Any] = {"parts": read(settings).to_json()}
    except ModelRefused as exc:
        answer = {"refused": str(exc)}
    except ModelNotFound as exc:
        answer = {"missing": str(exc)}
    json.dump(answer, answers)
    answers.close()
    os._exit(0)  # some libraries' threads end slowly; all is said


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.path[:0] = [path for path in [str(Path.cwd())] if path not in sys.path]
    _main()
