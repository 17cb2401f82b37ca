"""What a model's JSON files say, as plain values; what can't be honoured is refused by name.

A hole is never filled with a default: defaults hold only where the whole entry is absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deployments.model.source import ModelRefused
from deployments.pipeline.types import Calibration

PROBLEM_TYPES = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)
# transformers writes 1e30 for "unknown".
LARGEST_LENGTH = 10**9
# Beyond it float32 makes zeros and infinities of scores.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.001, 1_000.0
_SHOWN = 80


def said(file: str, key: str, holds: str, should: str, cure: str) -> str:
    """One message of what is wrong in a file; `shown` shows what it holds."""
    return f"{file}: `{key}` holds {holds}; it should hold {should}. {cure}"


def shown(value: Any) -> str:
    """A value of a JSON file as it stands there, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    text = text.encode(errors="backslashreplace").decode()  # half of a character can't be printed
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels' names, in the order of the model's outputs.

    Raises:
        ModelRefused: they are not exactly 0…n−1 with a name each.
    """
    names, count = config.get("id2label"), config.get("num_labels")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise _refused(
            "num_labels", shown(count), "the number of labels", "Write it, or delete the key."
        )
    if names is None:
        if config.get("label2id"):
            raise _refused(
                "id2label",
                "nothing, while label2id names labels",
                'the name of each label under its number, as {"0": "negative", …}',
                "Write it; without it every label would be called LABEL_0, LABEL_1, …",
            )
        return tuple(f"LABEL_{i}" for i in range(2 if count is None else count))
    labels = _numbered(names)
    if count not in {None, len(labels)}:
        raise _refused(
            "num_labels",
            shown(count),
            f"{len(labels)}, as many as id2label names",
            "Delete num_labels if id2label is right.",
        )
    backwards = config.get("label2id")
    if isinstance(backwards, Mapping):
        for i, name in enumerate(labels):
            number = backwards.get(name)
            # As text too: nobody reads it, and "0" contradicts nothing.
            if number is not None and number != i and str(number) != str(i):
                raise _refused(
                    "label2id",
                    f"{shown(backwards[name])} for {name!r}, which id2label gives the number {i}",
                    f"{i} for it",
                    "Find out which of the two the model was trained with, and correct the other.",
                )
    return labels


def _numbered(names: Any) -> tuple[str, ...]:
    example = '{"0": "negative", "1": "positive"}'
    if not isinstance(names, Mapping) or not names:
        raise _refused(
            "id2label",
            shown(names),
            f"a name under each number from 0 on, as {example}",
            "Write it in the order of the model's outputs, or delete the key.",
        )
    needed = [str(i) for i in range(len(names))]
    found = [str(key) for key in names]
    if sorted(found) != sorted(needed):
        raise _refused(
            "id2label",
            f"the keys {_listed(found)}",
            f"exactly {_listed(needed)}, each with its label's name",
            "Number the labels from 0 in the order of the model's outputs.",
        )
    for key in needed:
        name = names[key] if key in names else names[int(key)]
        if not _is_name(name):
            raise _refused(
                "id2label",
                f'{shown(name)} under "{key}"',
                "a name there",
                "Write the label's name.",
            )
    labels = tuple(str(names[k] if k in names else names[int(k)]) for k in needed)
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise _refused(
                "id2label",
                f"{label!r} under {labels.index(label)} and {i}: one name for several labels",
                "one name for each of its labels",
                "Give each label its own name.",
            )
    return labels


def _is_name(name: Any) -> bool:
    """Whether a label may be called so: no empty text, NaN, or half of a character."""
    if isinstance(name, bool) or not isinstance(name, str | int | float) or name != name:
        return False
    try:
        return bool(str(name).encode())
    except UnicodeEncodeError:
        return False


def problem_type_of(config: Mapping[str, Any], n_labels: int) -> str:
    """How logits become scores: named, else as transformers' TextClassificationPipeline reads it,
    for which one label is a probability of its own and several exclude each other.

    Raises:
        ModelRefused: a word that nobody knows, or one that makes no sense for one label.
    """
    named = config.get("problem_type")
    if named is None:
        return PROBLEM_TYPES[1] if n_labels == 1 else PROBLEM_TYPES[0]
    if named not in PROBLEM_TYPES:
        raise _refused(
            "problem_type",
            shown(named),
            f"{', '.join(PROBLEM_TYPES[:2])} or {PROBLEM_TYPES[2]}",
            "Delete the key for transformers' own choice: sigmoid for one label, else softmax.",
        )
    if n_labels == 1 and named == PROBLEM_TYPES[0]:
        raise _refused(
            "problem_type",
            f"{named}, and there is one label, whose score would be 1 for every text",
            f"{PROBLEM_TYPES[1]} or {PROBLEM_TYPES[2]}",
            "Delete the key for a probability from 0 to 1.",
        )
    return str(named)


def calibration_of(calibration: Any) -> tuple[float, Calibration]:
    """What calibration.json holds: the temperature, and the rest.

    Raises:
        ModelRefused: it is nothing that scores can be made of, or stands with others.
    """
    known = {"temperature", *Calibration.__dataclass_fields__}
    if (
        not isinstance(calibration, Mapping)
        or "temperature" not in calibration
        or not set(calibration) <= known
    ):
        raise ModelRefused(
            said(
                "calibration.json",
                "temperature",
                f"something else in all: {shown(calibration)}",
                '{"temperature": 1.3}; it may add abstain_below, label_set_from or platt',
                "Correct it, or delete the file for no calibration.",
            )
        )
    limits = {
        "temperature": (MIN_TEMPERATURE, MAX_TEMPERATURE, "; 1 changes nothing"),
        "abstain_below": (0, 1, ""),
        "label_set_from": (0, 1, ""),
    }
    for key, (low, high, more) in limits.items():
        value = calibration.get(key)
        if (value is not None or key == "temperature") and not _number(value, low, high):
            raise _miscalibrated(key, value, f"a number from {low:g} to {high:g}{more}")
    platt = calibration.get("platt")
    if platt is not None and not _pairs(platt):
        raise _miscalibrated("platt", platt, "[slope, offset] for each label, all of them numbers")
    rest = {key: value for key, value in calibration.items() if key != "temperature"}
    return calibration["temperature"], Calibration.from_json(rest)


def _number(value: Any, low: float, high: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return low <= value <= high  # nor NaN


def _pairs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(_number(one, -MAX_TEMPERATURE, MAX_TEMPERATURE) for one in pair)
        for pair in value
    )


def _miscalibrated(key: str, value: Any, wanted: str) -> ModelRefused:
    cure = "Calibrate again, or delete the file."
    return ModelRefused(said("calibration.json", key, shown(value), wanted, cure))


def tokenizer_limit_of(value: Any) -> int | None:
    """What `model_max_length` of a tokenizer says; None where it knows no limit.

    Raises:
        ModelRefused: no text could be cut to it.
    """
    if value is None:
        return None
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    if whole and value >= LARGEST_LENGTH:
        return None
    if not whole or not value >= 1 or value != int(value):
        raise ModelRefused(
            said(
                "tokenizer_config.json",
                "model_max_length",
                shown(value),
                "how many tokens the model reads, 1 or more",
                "Write it, or delete the key where it isn't known.",
            )
        )
    return int(value)


def refuse_quantization(config: Mapping[str, Any]) -> None:
    """Quantised weights are not served, whatever transformers would do with them.

    Raises:
        ModelRefused: config.json says that they are.
    """
    for part, prefix in ((config, ""), (config.get("text_config"), "text_config.")):
        for key in ("quantization_config", "compression_config"):
            named = part.get(key) if isinstance(part, Mapping) else None
            if named is not None:
                method = named.get("quant_method") if isinstance(named, Mapping) else named
                raise _refused(
                    f"{prefix}{key}.quant_method",
                    shown(method),
                    "no such entry, and weights in float32, float16 or bfloat16",
                    "Set args.model.id to the model before quantisation; rayclassify quantises by "
                    "itself (args.engine.dtype: int8).",
                )


def _refused(key: str, holds: str, should: str, cure: str) -> ModelRefused:
    return ModelRefused(said("config.json", key, holds, should, cure))


def _listed(keys: list[str]) -> str:
    return ", ".join(keys if len(keys) <= 8 else [*keys[:7], "…", keys[-1]])
