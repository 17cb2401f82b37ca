"""Where a model's files are and what its config says. Reads JSON only: no torch needed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from deployments.core.types import ModelInfo
from deployments.settings import ModelSettings

DEMO_MODEL = ModelSettings().id
PACKAGE_DIR = Path(__file__).resolve().parent.parent
# Where configs give no length (transformers writes 1e30 for "unknown"), BERT's own limit.
DEFAULT_MAX_LENGTH = 512


class ModelNotFound(Exception):
    """The model's directory or hub repository can't be read. The message says what to do."""


class ModelRefused(ModelNotFound):
    """Its files say what can't be honoured. The message names file, key, what it holds, what it
    should hold, and the cure."""


def find_model(model_id: str) -> str:
    """Absolute path of a model directory, or the hub id unchanged.

    A relative path is looked for in the working directory, beside the package (a checkout) and
    inside the package (an installed wheel), so that it means the same on every worker of a cluster.

    Raises:
        ModelNotFound: it looks like a path, and no such directory exists.
    """
    if found := _find_below((Path.cwd(),), model_id) or find_packaged(model_id):
        return str(found)
    looks_like_path = model_id.startswith((".", "/", "~")) or model_id.count("/") > 1
    if looks_like_path or Path(model_id).exists() or model_id == DEMO_MODEL:
        raise ModelNotFound(
            f"no model in {model_id!r}: expected a directory with config.json. "
            "Set args.model.id to a model directory or a hub id."
        )
    return model_id


def find_packaged(model_id: str) -> Path | None:
    """The model beside or inside the package, where any worker finds it under its short name."""
    return _find_below((PACKAGE_DIR.parent, PACKAGE_DIR), model_id)


def _find_below(bases: tuple[Path, ...], model_id: str) -> Path | None:
    for base in bases:
        candidate = base / Path(model_id).expanduser()
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    return None


def read_config(settings: ModelSettings) -> dict[str, Any]:
    """The model's config.json, from its directory or from the hub.

    Raises:
        ModelNotFound: there is none, or the hub can't be reached.
    """
    try:
        loaded = _read_json("config.json", settings)
    except (OSError, ValueError) as exc:
        raise ModelNotFound(
            f"can't read config.json of model {settings.id!r} ({type(exc).__name__}). "
            "Check args.model.id and args.model.revision, and that this machine reaches the hub."
        ) from exc
    return loaded


def model_info(settings: ModelSettings, config: dict[str, Any] | None = None) -> ModelInfo:
    """Labels, kind of problem, length limit and temperature, from config.json and the settings.

    `problem_type` follows transformers' TextClassificationPipeline where the config names none:
    one label reads as a probability of its own, several as exclusive.

    Raises:
        ModelNotFound: as `read_config`.
        ValueError: two labels share a name, or max_length is over what the model can read.
    """
    trained = None
    if config is None:
        config = read_config(settings)
        trained = _tokenizer_limit(settings)
    labels = _labels(config)
    limit = _position_limit(config)
    if settings.max_length is not None and settings.max_length > limit:
        raise ValueError(
            f"args.model.max_length is {settings.max_length}; the model's limit is {limit}. "
            "Lower it or leave it null."
        )
    temperature = settings.temperature or float(config.get("temperature") or 1.0)
    return ModelInfo(
        model=settings.id,
        revision=settings.revision,
        labels=labels,
        problem_type=_problem_type(config, len(labels)),
        max_length=settings.max_length or min(limit, trained or limit),
        temperature=temperature,
    )


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    by_id = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    n = len(by_id) or int(config.get("num_labels") or 2)
    labels = tuple(by_id.get(i, f"LABEL_{i}") for i in range(n))
    if len(set(labels)) < n:
        raise ValueError(
            f"the model's id2label gives one name to several of its {n} labels. "
            "Give each label its own name in config.json."
        )
    return labels


def _problem_type(config: dict[str, Any], n_labels: int) -> str:
    named = str(config.get("problem_type") or "single_label_classification")
    # Softmax over one label would be 1, whatever the model says.
    alone = n_labels == 1 and named == "single_label_classification"
    return "multi_label_classification" if alone else named


# RoBERTa and its kin number positions from pad_token_id + 1.
_POSITIONS_BEHIND_PADDING = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm"),
    *("longformer", "data2vec-text", "esm", "ibert", "xmod", "luke", "lilt"),
}


def _position_limit(config: dict[str, Any]) -> int:
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions is None:
        return DEFAULT_MAX_LENGTH
    if config.get("model_type") in _POSITIONS_BEHIND_PADDING:
        return int(positions) - int(config.get("pad_token_id") or 0) - 1
    return int(positions)


def _tokenizer_limit(settings: ModelSettings) -> int | None:
    """What the tokenizer cuts texts to by itself; many say nothing, or 10^30."""
    with suppress(Exception):  # nor need there be such a file
        return int(_read_json("tokenizer_config.json", settings)["model_max_length"])
    return None


def _read_json(name: str, settings: ModelSettings) -> dict[str, Any]:
    """A file of the model's directory or of the hub."""
    source = find_model(settings.id)
    path = Path(source, name)
    if not path.parent.is_dir():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(source, name, revision=settings.revision))
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
