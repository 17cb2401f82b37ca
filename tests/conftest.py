"""Shared by all tests: small real models, made here."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEMO_MODEL = Path(__file__).resolve().parent.parent / "models" / "demo"
_CACHE_VARIABLE = "RAYCLASSIFY_CACHE_DIR"
_CACHE_DIR = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """What tests and the processes they start would cache goes into a directory of this run."""
    config.stash[_CACHE_DIR] = os.environ[_CACHE_VARIABLE] = tempfile.mkdtemp(prefix="rayclassify")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_CACHE_DIR], ignore_errors=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def demo_model() -> Path:
    return DEMO_MODEL


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command's models run in this process, and little is timed. A process for each imports torch
    for seconds; unit/test_evaluate.py has a real run."""
    import torch

    from deployments.optimise import cascading, drifting, running

    for module in (cascading, drifting, running):
        monkeypatch.setattr(module, "apart", lambda work, *args: work(*args))
    monkeypatch.setattr(running, "_LATENCY_S", 0.1)
    monkeypatch.setattr(running, "_THROUGHPUT_S", 0.1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)  # an engine sets it for its whole process


@pytest.fixture(scope="session")
def make_tiny_model(
    tmp_path_factory: pytest.TempPathFactory, demo_model: Path
) -> Callable[..., Path]:
    """Makes a randomly initialised BERT of a few thousand weights with the demo's tokenizer."""

    def make(**config: Any) -> Path:
        import torch
        from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(demo_model)
        shape = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "pad_token_id": tokenizer.pad_token_id,
        }
        directory = tmp_path_factory.mktemp("tiny_model")
        model = BertForSequenceClassification(BertConfig(**{**shape, **config}))
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return directory

    return make
