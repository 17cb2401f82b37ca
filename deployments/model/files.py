"""What a look at a model directory's files can tell, in about a second and without torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deployments.model import config_json as model_config
from deployments.model.config_json import said, shown
from deployments.model.source import (
    ModelNotFound,
    ModelRefused,
    find_model,
    read_config,
    read_json,
    refuse_unfetched,
)
from deployments.settings import ModelSettings

_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken", "tekken.json"),
    *("spm.*", "bpe.codes", "sentencepiece*", "vocab*", "tokenizer*.txt"),
)


def refuse_faults(settings: ModelSettings) -> None:
    """Raises ModelNotFound or ModelRefused: the first of `faults`."""
    for check in _CHECKS:
        check(settings)


def refuse_weights(settings: ModelSettings) -> None:
    """Before weights are loaded, of a directory or the hub: what must not be taken for a model's.

    Raises:
        ModelRefused: they are an adapter's, quantised, pickled, missing or not whole.
        ModelNotFound: there is no config.json.
    """
    if _directory(settings) is None and _on_hub("adapter_config.json", settings):
        raise _is_adapter("adapter_config.json", settings)
    for check in (_adapter, _quantization, _weights):
        check(settings)


def faults(settings: ModelSettings) -> Iterator[str]:
    """Everything that a look at the files shows, a message each. Of a hub id: nothing."""
    if not _directory(settings):
        try:
            find_model(settings.id)
        except ModelNotFound as exc:
            yield str(exc)
        return
    seen: set[str] = set()
    for check in _CHECKS:
        try:
            check(settings)
        except ModelNotFound as exc:
            if str(exc) not in seen:
                seen.add(str(exc))
                yield str(exc)


def read_optional(name: str, settings: ModelSettings) -> Any:
    """A JSON file's content; None where there is no such file.

    Raises:
        ModelRefused: it is there, and no JSON.
    """
    source = _directory(settings)
    if source is not None and not (source / name).exists() and not _stands(source / name):
        return None
    try:
        found = read_json(name, settings)
        # `null` is no missing file.
        return {"null": None} if found is None else found
    except (ValueError, RecursionError) as exc:
        invalid = isinstance(exc, json.JSONDecodeError | UnicodeError | RecursionError)
        if source is None and not invalid:
            return None  # the hub's own "no such entry"
        raise ModelRefused(
            f"{name} of model {settings.id!r} is no JSON ({type(exc).__name__}: {exc}). "
            "Correct it, or save the model again."
        ) from None
    except OSError as exc:
        if source is None:
            return None
        raise ModelRefused(
            f"{name} of model {settings.id!r} is there and can't be read "
            f"({type(exc).__name__}). See that it is a file that this user may read."
        ) from None


def _revision(settings: ModelSettings) -> None:
    if settings.revision is not None and _directory(settings):
        raise ModelRefused(
            f"args.model.revision is {settings.revision!r}, and args.model.id, {settings.id!r}, is "
            "a directory, which has no revisions: it would be ignored. Delete revision, or set "
            "args.model.id to a hub id."
        )


def _adapter(settings: ModelSettings) -> None:
    source = _directory(settings)
    found = sorted(source.glob("adapter_*.*")) if source else []
    named = [
        path.name for path in found if path.name.startswith(("adapter_config", "adapter_model"))
    ]
    if named:
        raise _is_adapter(named[0], settings)


def _is_adapter(name: str, settings: ModelSettings) -> ModelRefused:
    return ModelRefused(
        f"model {settings.id!r} is an adapter ({name}), and adapters are not "
        "served. Merge it first: peft's merge_and_unload(), then save_pretrained() of model "
        "and tokenizer into a new directory."
    )


def _on_hub(name: str, settings: ModelSettings) -> bool:
    from huggingface_hub import hf_hub_download

    with contextlib.suppress(Exception):  # there is none, or the hub can't be reached
        return bool(hf_hub_download(settings.id, name, revision=settings.revision))
    return False


def _config(settings: ModelSettings) -> None:
    raw = read_config(settings)
    model_config.problem_type_of(raw, len(model_config.labels_of(raw)))


def _quantization(settings: ModelSettings) -> None:
    model_config.refuse_quantization(read_config(settings))


def _calibration(settings: ModelSettings) -> None:
    found = read_optional("calibration.json", settings)
    if found is not None:
        model_config.calibration_of(found)


def _weights(settings: ModelSettings) -> None:
    source = _directory(settings)
    if source is None or _names_weights_itself(settings):
        return
    for name in (_SAFE, _PICKLED):
        if _stands(source / name):
            _allowed(source / name, settings)
            _whole(source / name, settings)
            return
        if _stands(source / f"{name}.index.json"):
            _shards(source / f"{name}.index.json", settings)
            return
    others = sorted(path.name for path in (*source.glob("*.safetensors"), *source.glob("*.bin")))
    found = f"; {others[0]} is there, which transformers doesn't look for" if others else ""
    raise ModelRefused(
        f"model {settings.id!r} has no weights: expected {_SAFE} (or {_SAFE}.index.json and its "
        f"shards) beside config.json{found}. Copy them there, or save the model again."
    )


def _names_weights_itself(settings: ModelSettings) -> bool:
    try:
        return bool(read_config(settings).get("transformers_weights"))
    except ModelNotFound:
        return False


def _shards(index: Path, settings: ModelSettings) -> None:
    content = read_optional(index.name, settings)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise ModelRefused(
            said(
                index.name,
                "weight_map",
                shown(shards),
                "the file of each weight",
                "Fetch or save the model again.",
            )
        )
    names = sorted({str(name) for name in shards.values()})
    missing = [name for name in names if not _stands(index.parent / name)]
    if missing:
        raise ModelRefused(
            f"model {settings.id!r} lacks {len(missing)} of its {len(names)} files of weights, "
            f"{missing[0]} for one, which {index.name} names. Fetch or copy the model again."
        )
    for name in names:
        _allowed(index.parent / name, settings)
        _whole(index.parent / name, settings)


def _stands(path: Path) -> bool:
    """Whether there is something of this name, be it a link to no file."""
    return path.is_file() or path.is_symlink()


def _allowed(path: Path, settings: ModelSettings) -> None:
    if path.suffix == ".bin" and not settings.allow_pickle:
        raise ModelRefused(
            f"the weights of {settings.id!r} are pickled ({path.name}), and a pickle can hold "
            "code. Load the model with transformers and save it again, which writes safetensors; "
            "or, if you trust who made it, set args.model.allow_pickle: true."
        )


def _whole(path: Path, settings: ModelSettings) -> None:
    """A file that was not fetched wholly is found by its own beginning."""
    refuse_unfetched(path, settings.id)
    if path.suffix != ".safetensors":
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start[:8], "little")
        try:
            if len(start) < 8 or not 0 < length <= size - 8:
                raise ValueError("no header")
            header = json.loads(file.read(length))
            ends = [int(v["data_offsets"][1]) for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelRefused(
                f"{path.name} of model {settings.id!r} is damaged: its {size} bytes begin with no "
                "header of safetensors. Fetch or save the model again."
            ) from None
    needed = 8 + length + max(ends, default=0)
    if size < needed:
        raise ModelRefused(
            f"{path.name} of model {settings.id!r} is cut short: it has {size} of {needed} bytes. "
            "Fetch or copy it again."
        )


def _tokenizer(settings: ModelSettings) -> None:
    source = _directory(settings)
    if source is None:
        return
    named = _tokenizer_config(settings)
    model_config.tokenizer_limit_of(named_tokenizer_limit(settings))
    # Not glob: it leaves out a link to no file.
    found = [path for path in sorted(source.iterdir()) if any(map(path.match, _VOCABULARIES))]
    if not found and not _coded(named):
        raise ModelRefused(
            f"model {settings.id!r} has no tokenizer: expected tokenizer.json, or a vocabulary "
            "(vocab.txt, vocab.json, a .model), beside config.json. Copy it there, or save it "
            "with AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    if not _stands(source / "tokenizer.json"):
        for path in found:
            refuse_unfetched(path, settings.id)
    else:
        content = read_optional("tokenizer.json", settings)
        model = content.get("model") if isinstance(content, dict) else None
        if not isinstance(model, dict):
            raise ModelRefused(
                said(
                    "tokenizer.json",
                    "model",
                    shown(model),
                    "a vocabulary",
                    "Save the tokenizer again.",
                )
            )


def named_tokenizer_limit(settings: ModelSettings) -> Any:
    """What tokenizer_config.json holds, whatever it is; `max_len` is its old name."""
    named = _tokenizer_config(settings)
    return named.get("model_max_length", named.get("max_len"))


def _tokenizer_config(settings: ModelSettings) -> dict[str, Any]:
    config = read_optional("tokenizer_config.json", settings)
    if config is not None and not isinstance(config, dict):
        raise ModelRefused(
            "tokenizer_config.json holds no mapping of keys to values. Save the tokenizer again."
        )
    return config or {}


def _coded(tokenizer_config: dict[str, Any]) -> bool:
    """Bytes and characters need no vocabulary, code of its own may read any file."""
    kind = str(tokenizer_config.get("tokenizer_class"))
    return "auto_map" in tokenizer_config or kind.startswith(("ByT5", "Canine", "Perceiver"))


def _directory(settings: ModelSettings) -> Path | None:
    try:
        source = Path(find_model(settings.id))
    except ModelNotFound:
        return None
    return source if source.is_dir() else None


# What is cheapest to put right first.
_CHECKS: tuple[Callable[[ModelSettings], None], ...] = (
    *(_revision, _adapter, _config, _quantization, _calibration, _weights, _tokenizer),
)
