"""A model's directory, as transformers, the service and other users of the machine read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save(model: Any, tokenizer: Any, out: Path, half: bool = True) -> None:
    """A directory that transformers and the service load. half: weights in 16 bits."""
    out.mkdir(parents=True, exist_ok=True)
    (model.half() if half else model.float()).save_pretrained(out)
    tokenizer.save_pretrained(out)
    open_to_readers(out)


def open_to_readers(out: Path) -> None:
    """Who may read a model's config.json may read its weights, too.

    safetensors writes them as 0600; but a service, in an image for one, is another user than the
    training.
    """
    mode = (out / "config.json").stat().st_mode
    for weights in out.glob("*.safetensors"):
        weights.chmod(mode)
