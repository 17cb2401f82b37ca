"""scripts/gpu_check.py, as far as it goes without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts import gpu_check

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
# What a bare machine with torch and transformers lacks of our dependencies.
MISSING = ("ray", "msgspec", "pydantic", "starlette", "platformdirs", "deployments.settings")


def test_it_needs_torch_and_transformers_only() -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({MISSING!r})); import scripts.gpu_check"
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("kind", gpu_check.HEADS)
def test_each_packed_class_is_held_against_transformers(kind: str) -> None:
    row = gpu_check.parity(kind, "bfloat16", CPU)
    assert row["right"], row
    # Close enough to be right, and far enough apart to tell a wrong one.
    assert 1e-4 < row["drift"] < gpu_check.DRIFT["bfloat16"]


@pytest.mark.parametrize("kind", ["bert", "mpnet", "modernbert"])
def test_a_recorded_pass_is_held_against_the_packed_one(kind: str) -> None:
    row = gpu_check.graph_parity(kind, "bfloat16", CPU)
    assert row["right"] is True, row
    assert row["drift"] < gpu_check.DRIFT["bfloat16"]


def test_a_pass_that_can_not_be_recorded_is_no_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(run: object) -> object:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(gpu_check, "_record", lambda device: record)
    row = gpu_check.graph_parity("bert", "float32", CPU)
    assert row["right"] is None
    assert "not permitted" in row["no_graphs"]
    rows = list(gpu_check.small_batches("MiniLM", CPU, quick=True))
    assert [row["shape"] for row in rows] == ["MiniLM"]
    assert "not permitted" in rows[0]["no_graphs"]


def test_a_recorded_pass_that_answers_otherwise_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        first = run()
        return lambda: first

    monkeypatch.setattr(gpu_check, "_record", lambda device: record)
    row = gpu_check.graph_parity("bert", "float32", CPU)
    assert row["right"] is False
    assert "differ by" in row["failed"]


def test_small_batches_are_timed_both_ways() -> None:
    rows = list(gpu_check.small_batches("MiniLM", CPU, quick=True))
    assert [(row["tokens"], row["texts"]) for row in rows] == [(16, 1), (16, 4), (73, 1), (73, 4)]
    for row in rows:
        for how in ("eager", "graphs"):
            n_tokens = row["tokens"] * row["texts"]
            expected = n_tokens / row[f"{how}_ms"] * 1e3
            assert row[f"{how}_tokens_per_s"] == pytest.approx(expected, rel=0.01)
    json.dumps(rows)


def test_nothing_is_compiled_without_a_gpu_and_what_is_over_time_ends() -> None:
    rows = list(gpu_check.compiled("MiniLM", CPU, 300.0))
    assert [row["skipped"] for row in rows] == ["no GPU"] * 3
    with pytest.raises(TimeoutError, match="within 0 s"), gpu_check._within(0.01):
        threading.Event().wait(60)


def test_graphs_are_suggested_up_to_where_they_gain() -> None:
    took = {1: (4.0, 1.0), 4: (4.0, 2.0), 16: (4.1, 4.0), 32: (9.0, 8.0)}
    rows: list[dict[str, object]] = [
        {"shape": "x", "tokens": 10, "texts": n, "eager_ms": eager, "graphs_ms": graphs}
        for n, (eager, graphs) in took.items()
    ]
    rows.append({"shape": "y", "no_graphs": "RuntimeError"})
    assert gpu_check.graph_suggestion(rows) == {"graphs_up_to_tokens": {"x": 40, "y": 0}}


def test_a_wrong_answer_is_no_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = gpu_check.PackedRunner.__call__
    monkeypatch.setattr(gpu_check.PackedRunner, "__call__", lambda *args: exact(*args)[::-1])
    assert not gpu_check.parity("bert", "float32", CPU)["right"]


def test_what_fails_is_a_row_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(gpu_check.PackedRunner, "__call__", fails)
    row = gpu_check.parity("bert", "float32", CPU)
    assert "illegal memory access" in row["failed"]
    assert not row["right"]


def test_speed_is_of_tokens_and_a_share_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "BUDGETS", (256, *gpu_check.BUDGETS))
    row = gpu_check.speed("MiniLM", 16, CPU, 1.0, quick=True)
    one = row["by_budget"]["256"]
    assert one["tokens_per_s"] > 0
    # 10.6 million weights in layers, twice, and attention.
    assert one["share_of_peak"] == pytest.approx(one["tokens_per_s"] * 21.4e6 / 1e12, rel=0.05)
    json.dumps(row)


def test_the_smallest_budget_beyond_which_nothing_is_won_is_suggested() -> None:
    rates = {"4096": 100, "16384": 200, "65536": 206, "262144": 205}
    row = {"shape": "x", "by_budget": {b: {"tokens_per_s": r} for b, r in rates.items()}}
    assert gpu_check.suggestion([row]) == {"max_batch_tokens": {"x": 16_384}}
