"""What a model's files may do: nothing. Poisoned ones are real, and would leave a mark."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deployments.engines.loading import load_model
from deployments.model.reading import load_tokenizer
from deployments.model.source import ModelNotFound
from deployments.settings import ModelSettings


@pytest.fixture
def model(make_tiny_model: Callable[..., Path]) -> Path:
    return make_tiny_model()


@pytest.fixture
def pickled(model: Path) -> Path:
    """The same model with its weights as a pickle, as older hub models have them."""
    network = load_model(ModelSettings(id=str(model)))
    torch.save(network.state_dict(), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    return model


class Poison:
    """Unpickled by Python itself, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_pickled_weights_are_refused_with_the_cure(pickled: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        load_model(ModelSettings(id=str(pickled)))
    assert "pickled (pytorch_model.bin)" in str(caught.value)
    assert "args.model.allow_pickle: true" in str(caught.value)


def test_pickled_weights_load_where_they_are_allowed(pickled: Path) -> None:
    network = load_model(ModelSettings(id=str(pickled), allow_pickle=True))
    assert sum(p.numel() for p in network.parameters()) > 1_000


def test_safetensors_win_over_a_pickle_beside_them(model: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Poison(mark)))
    for allowed in (False, True):
        load_model(ModelSettings(id=str(model), allow_pickle=allowed))
    assert not mark.exists()


def test_a_poisoned_pickle_runs_nothing_even_where_it_is_allowed(
    pickled: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    poison = pickle.dumps(Poison(mark), 2)  # torch's own protocol
    (pickled / "pytorch_model.bin").write_bytes(poison)
    with pytest.raises((pickle.UnpicklingError, RuntimeError, ModelNotFound)):
        load_model(ModelSettings(id=str(pickled), allow_pickle=True))
    assert not mark.exists()
    pickle.loads(poison)  # noqa: S301
    assert mark.exists()  # the poison does work


def test_code_beside_a_model_does_not_run(model: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\n"
    for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py"):
        (model / name).write_text(code)
    for name, entries in {
        "config.json": {
            "AutoConfig": "configuration_evil.Evil",
            "AutoModelForSequenceClassification": "modeling_evil.Evil",
        },
        "tokenizer_config.json": {"AutoTokenizer": ["tokenization_evil.Evil", None]},
    }.items():
        path = model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": entries}))
    settings = ModelSettings(id=str(model))
    assert not settings.trust_remote_code
    for load in (load_model, load_tokenizer):
        with contextlib.suppress(ValueError, ModelNotFound):  # refused is as good as ignored
            load(settings)
    assert not mark.exists()
