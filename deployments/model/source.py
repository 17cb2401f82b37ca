"""Where a model's files are, and the two errors that say why a model is not served."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments.pipeline.errors import kind_and_place, raised_by_us
from deployments.pipeline.types import ModelInfo
from deployments.settings import ModelSettings

logger = logging.getLogger(__name__)

DEMO_MODEL = ModelSettings().id
_LFS = b"version https://git-lfs"
PACKAGE_DIR = Path(__file__).resolve().parent.parent


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
    refuse_unfetched(Path(model_id).expanduser() / "config.json", model_id)
    looks_like_path = model_id.startswith((".", "/", "~")) or model_id.count("/") > 1
    if (Path(model_id).expanduser() / "adapter_config.json").is_file():
        raise ModelRefused(
            f"model {model_id!r} is an adapter (adapter_config.json), and adapters are not served. "
            "Merge it first: peft's merge_and_unload() on its base model, then save_pretrained() "
            "of model and tokenizer into a new directory."
        )
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
        loaded = read_json("config.json", settings)
    except (OSError, ValueError, RecursionError) as exc:
        what = f": {exc}" if isinstance(exc, json.JSONDecodeError) else ""
        raise ModelNotFound(
            f"can't read config.json of model {settings.id!r} ({type(exc).__name__}{what}). "
            "Check args.model.id and its revision, and that this machine reaches the hub; or "
            "name a directory that holds the model."
        ) from None
    if not isinstance(loaded, dict):
        raise ModelRefused(
            f"config.json of model {settings.id!r} holds a {type(loaded).__name__}; it should hold "
            "a mapping of keys to values. Fetch or save the model again."
        )
    return loaded


def model_info(settings: ModelSettings) -> ModelInfo:
    """Labels, kind of problem, length limit and temperature.

    For engines: needs no tokenizer where transformers is here already.

    Raises:
        ModelNotFound: as `load_parts`.
    """
    from deployments.model.read_apart import read_apart, remembered

    if "transformers" not in sys.modules:
        return read_apart(settings).info
    if (parts := remembered(settings)) is not None:
        return parts.info
    from deployments.model.reading import read_info

    with own_words(settings.id):
        return read_info(settings)[0]


def read_json(name: str, settings: ModelSettings) -> Any:
    """The content of a file of the model's directory or of the hub.

    Raises:
        OSError, ValueError, RecursionError: there is none, or it is no JSON.
        ModelRefused: as `refuse_unfetched`.
    """
    source = find_model(settings.id)
    path = Path(source, name)
    if not path.parent.is_dir():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(source, name, revision=settings.revision))
    refuse_unfetched(path, settings.id)
    return json.loads(path.read_text(encoding="utf-8"))


def refuse_unfetched(path: Path, model_id: str) -> None:
    """Raises ModelRefused: in the file's place is a pointer of git-lfs, or a link to no file."""
    if path.is_symlink() and not path.exists():
        raise ModelRefused(
            f"{path.name} of model {model_id!r} is a link to {str(path.readlink())!r}, where no "
            "file is. Copy the file itself there, or fetch the model again."
        )
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise ModelRefused(
                f"{path.name} of model {model_id!r} is a git-lfs pointer, not the file: run "
                "`git lfs pull` in its directory."
            )


def is_commit(revision: str | None) -> bool:
    """Whether a revision can't move."""
    return re.fullmatch("[0-9a-f]{40}", revision or "") is not None


@contextmanager
def own_words(model: str, *ours: type[Exception]) -> Iterator[None]:
    """While a model is read nothing leaves but ModelNotFound, and `ours`: messages in our own
    words. A library's error goes to the log, with its traceback: there is no user's text yet.
    """
    try:
        yield
    except ModelNotFound:
        raise
    except ours:
        raise
    except MemoryError:
        raise ModelRefused(
            f"model {model!r} does not fit into this machine's memory. Give the process more, or "
            "set args.model.id to a smaller model."
        ) from None
    except ImportError as exc:
        logger.warning("model %r can't be loaded", model, exc_info=exc)
        raise ModelRefused(
            f"model {model!r} needs a package that is not installed here: "
            f"{' '.join(str(exc).split())[:200]}. Install it, or set args.model.id to a model "
            "that needs none."
        ) from None
    except Exception as exc:
        if isinstance(exc, ValueError) and raised_by_us(exc):
            raise ModelRefused(str(exc)) from None
        logger.warning("model %r can't be loaded", model, exc_info=exc)
        raise ModelRefused(
            f"model {model!r} can't be loaded ({kind_and_place(exc)}); the log has the traceback. "
            "Check that transformers' own AutoTokenizer and AutoModelForSequenceClassification "
            "load it with the versions installed here, or set args.model.id to another one."
        ) from None
