"""What this GPU does with the packed engine: right answers first, then tokens a second.

One call, 8 minutes at most, for a machine that has torch (CUDA), transformers and numpy and this
checkout; no Ray, no network. Prints as it goes and writes JSON. On a CPU (`--device cpu`) it runs
as far as it goes, for a try.

Example: `python scripts/gpu_check.py --output gpu.json`
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import transformers
from transformers import AutoModelForSequenceClassification

from deployments.engines import attention, cuda_graphs, graph_trial
from deployments.engines.cuda_graphs import CudaGraphs, GraphedRunner
from deployments.engines.encoder import HEADS
from deployments.engines.ids import Ids
from deployments.engines.packed import PackedRunner
from deployments.engines.padded import PaddedRunner
from deployments.pipeline.types import Encoded

LIMIT_S = 480.0
SMALL = {
    "vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "max_position_embeddings": 300, "dim": 64, "n_layers": 2,
    "n_heads": 4, "hidden_dim": 128, "embedding_size": 64, "initializer_range": 0.1,
    "num_labels": 3, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
"""Of each class as many as it knows: small, with weights that make its answers differ."""
DRIFT = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}
"""Per unit of the largest logit; as engines/parity.py has it, with TF32 in float32's products."""
SHAPES = {
    # layers, hidden, heads, intermediate
    "MiniLM": (6, 384, 12, 1_536),
    "BERT-base": (12, 768, 12, 3_072),
    "BERT-large": (24, 1_024, 16, 4_096),
}
LENGTHS = (16, 73, 128, 512)
BUDGETS = (4_096, 16_384, 65_536, 262_144)
SECONDS = 1.5
GAIN = 1.05  # a larger budget must bring so much to be suggested
PARITY_LENGTHS = (1, 2, 17, 40, 40, 7, 150, 250)
GRAPH_SIZES = (*cuda_graphs.SIZES, 2_304)  # one more, for 4 texts of 512 tokens
# torch.compile takes up to a minute a shape, and comes last: with less left it is not begun.
COMPILE_S = 60.0
COMPILED_TEXTS, COMPILED_TOKENS, COMPILED_SIZES = (1, 16), 73, (128, 1_280)


def main() -> None:
    """Exit code 0; 1: an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--quick", action="store_true", help="the smallest shape, short runs")
    asked = parser.parse_args()
    found = check(torch.device(asked.device), asked.quick)
    asked.output.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"{asked.output} written after {found['seconds']:.0f} s")
    wrong = [row for row in found["parity"] + found["graph_parity"] if row["right"] is False]
    raise SystemExit(1 if wrong else 0)


def check(device: torch.device, quick: bool = False) -> dict[str, Any]:
    """All figures, JSON-ready. What fails is said in its place, and the rest goes on."""
    began = time.monotonic()
    found: dict[str, Any] = {"machine": _machine(device)}
    found |= {"parity": [], "graph_parity": [], "small_batches": [], "speed": []}
    print(json.dumps(found["machine"]))
    dtypes = ("float32", "bfloat16") if device.type == "cpu" else tuple(DRIFT)
    for kind in HEADS:
        for dtype in dtypes:
            found["parity"].append(said(parity(kind, dtype, device)))
            found["graph_parity"].append(said(graph_parity(kind, dtype, device)))
    if device.type == "cuda":
        found["varlen"] = said(_varlen(device))
    found["peak_tflops"] = peak = said(_peak(device, quick))["bfloat16"]
    shapes = dict(list(SHAPES.items())[: 1 if quick else None])
    for name in shapes:
        if time.monotonic() - began > LIMIT_S / 2:
            found["small_batches"].append(said({"shape": name, "skipped": "time"}))
            continue
        found["small_batches"] += map(said, small_batches(name, device, quick))
    for name in shapes:
        for length in LENGTHS[: 2 if quick else None]:
            if time.monotonic() - began > LIMIT_S:
                found["speed"].append(said({"shape": name, "tokens": length, "skipped": "time"}))
                continue
            found["speed"].append(said(speed(name, length, device, peak, quick)))
    found["suggestion"] = said(
        {**suggestion(found["speed"]), **graph_suggestion(found["small_batches"])}
    )
    left_s = LIMIT_S - (time.monotonic() - began)
    found["torch_compile"] = [said(row) for row in compiled("BERT-base", device, left_s)]
    found["seconds"] = time.monotonic() - began
    return found


def said(row: dict[str, Any]) -> dict[str, Any]:
    """Prints it, as somebody waits."""
    print(json.dumps(row), flush=True)
    return row


def _machine(device: torch.device) -> dict[str, Any]:
    is_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.processor(),
        "memory_gb": torch.cuda.get_device_properties(device).total_memory / 1e9 if is_cuda else 0,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "varlen": attention._has_varlen(),
    }


def _small(kind: str) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind)
    known = {name: value for name, value in SMALL.items() if hasattr(config, name)}
    config = transformers.AutoConfig.for_model(kind, **known)
    return AutoModelForSequenceClassification.from_config(config).eval()


def texts(lengths: tuple[int, ...] | list[int], n_ids: int) -> Encoded:
    """Random words; no marks."""
    rng = np.random.default_rng(0)
    ids = rng.integers(10, n_ids, sum(lengths)).astype(np.int32)
    return Encoded(ids, np.asarray(lengths, np.int32))


def parity(kind: str, dtype: str, device: torch.device) -> dict[str, Any]:
    """The packed row on the device beside transformers' own forward on the CPU, text by text."""
    row: dict[str, Any] = {"class": kind, "dtype": dtype, "right": False}
    try:
        model = _small(kind)
        batch = texts(PARITY_LENGTHS, int(SMALL["vocab_size"]))
        expected = PaddedRunner(model, alone=True)(batch)
        got = _on(PackedRunner(model), device, dtype)(batch)
        drift = float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))
        return {**row, "drift": drift, "right": bool(drift <= DRIFT[dtype])}
    except Exception as exc:
        return {**row, "failed": _why(exc)}


def graph_parity(kind: str, dtype: str, device: torch.device) -> dict[str, Any]:
    """The recorded pass beside the packed one, both on the device. right: None: not recorded."""
    row: dict[str, Any] = {"graphs_of": kind, "dtype": dtype, "right": None}
    longest = max(PARITY_LENGTHS)
    try:
        packed = _on(PackedRunner(_small(kind)), device, dtype)
        graphed = GraphedRunner(packed, longest, _record(device), (64, 640))
    except Exception as exc:
        return {**row, "no_graphs": _why(exc)}
    try:
        ids = Ids(int(SMALL["vocab_size"]), 0, longest)
        return {**row, "right": True, "drift": graph_trial.check(graphed, ids, DRIFT[dtype])}
    except Exception as exc:
        return {**row, "right": False, "failed": _why(exc)}


def _why(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"[:300]


def _on(run: PackedRunner, device: torch.device, dtype: str) -> PackedRunner:
    run.model.to(device, getattr(torch, dtype))
    run.encoder.to(device, getattr(torch, dtype))
    return run


def _record(device: torch.device) -> cuda_graphs.Record:
    """On a CPU there are no graphs: the pass itself is called again."""
    return CudaGraphs(device).record if device.type == "cuda" else lambda run: run


def _varlen(device: torch.device) -> dict[str, Any]:
    """Flash attention over a packed row beside one call for each run of equal lengths."""
    spans = attention.Spans(np.asarray(PARITY_LENGTHS, np.int32), device)
    shape = (sum(PARITY_LENGTHS), 4, 64)
    torch.manual_seed(0)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(3))
    try:
        ours = attention.attend(q, k, v, spans, 0.125).float()
        exact = attention.attend(q.float(), k.float(), v.float(), spans, 0.125)
    except Exception as exc:
        return {"varlen": "failed", "why": _why(exc)}
    drift = float((ours - exact).abs().max())
    return {"varlen": "right" if drift < 0.05 else "wrong", "drift": drift}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Runs a second, after two that warm up."""
    for _ in range(2):
        run()
    _wait(device)
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or n < 2:
        run()
        n += 1
        if n % 8 == 0:
            _wait(device)
    _wait(device)
    return n / (time.perf_counter() - began)


def _peak(device: torch.device, quick: bool) -> dict[str, float]:
    """10¹² operations a second in the best matrix product."""
    size = 1_024 if device.type == "cpu" else 8_192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    per_s = rate(lambda: left @ right, device, 0.3 if quick else SECONDS)
    return {"bfloat16": round(2 * size**3 * per_s / 1e12, 3)}


def _shaped(name: str, device: torch.device) -> PackedRunner:
    """A random BERT of this shape, in bfloat16."""
    layers, hidden, heads, wide = SHAPES[name]
    config = transformers.BertConfig(
        vocab_size=8_000, num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads,
        intermediate_size=wide, num_labels=2,
    )  # fmt: skip
    run = PackedRunner(AutoModelForSequenceClassification.from_config(config).eval())
    run.release()
    return _on(run, device, "bfloat16")


def small_batches(name: str, device: torch.device, quick: bool) -> Iterator[dict[str, Any]]:
    """Few texts at once, run plainly and replayed as a CUDA graph: milliseconds a batch."""
    row: dict[str, Any] = {"shape": name}
    sizes = GRAPH_SIZES if device.type == "cuda" else (128, 320)
    try:
        graphed = GraphedRunner(_shaped(name, device), max(LENGTHS), _record(device), sizes)
    except Exception as exc:
        yield {**row, "no_graphs": _why(exc)}
        return
    for length in LENGTHS[: 2 if quick else None]:
        for n in graph_trial.TEXTS[: 2 if quick else None]:
            row = {"shape": name, "tokens": length, "texts": n}
            try:
                yield {**row, **_beside(graphed, texts([length] * n, 8_000), quick)}
            except Exception as exc:
                yield {**row, "failed": _why(exc)}


def _beside(graphed: GraphedRunner, batch: Encoded, quick: bool) -> dict[str, Any]:
    runs: dict[str, Callable[[], object]] = {"eager": partial(graphed.plain, batch)}
    if graphed.size_of(batch) is not None:
        runs["graphs"] = partial(graphed, batch)
    took = dict(zip(runs, graph_trial.seconds([*runs.values()], 3 if quick else 25), strict=True))
    return {
        **{f"{how}_ms": round(s * 1e3, 4) for how, s in took.items()},
        **{f"{how}_tokens_per_s": round(batch.total_tokens / s) for how, s in took.items()},
    }


Way = Callable[[cuda_graphs.Run], cuda_graphs.Run]


def compiled(name: str, device: torch.device, left_s: float) -> Iterator[dict[str, Any]]:
    """torch.compile in the place of a graph, with graphs of its own, and inside one of ours."""
    ways: dict[str, Way] = {
        "torch.compile": partial(torch.compile, dynamic=False),
        "torch.compile, reduce-overhead": partial(
            torch.compile, dynamic=False, mode="reduce-overhead"
        ),
        "torch.compile, in a graph of ours": lambda run: _record(device)(
            torch.compile(run, dynamic=False)
        ),
    }
    ends_s = time.monotonic() + left_s
    for how, way in ways.items():
        row: dict[str, Any] = {"shape": name, "how": how}
        still_s = ends_s - time.monotonic()
        if device.type != "cuda" or still_s < COMPILE_S:
            yield {**row, "skipped": "no GPU" if device.type != "cuda" else "time"}
            continue
        try:
            with _within(still_s):
                found = _compiled(name, device, way)
            yield from ({**row, **one} for one in found)
        except Exception as exc:
            yield {**row, "failed": _why(exc)}


def _compiled(name: str, device: torch.device, way: Way) -> list[dict[str, Any]]:
    # A function around it, as torch.compile takes no partial.
    made = GraphedRunner(
        _shaped(name, device), max(LENGTHS), lambda run: way(lambda: run()), COMPILED_SIZES
    )
    rows = []
    for n in COMPILED_TEXTS:
        batch = texts([COMPILED_TOKENS] * n, 8_000)
        drift = float(np.abs(made(batch) - made.plain(batch)).max())
        found = _beside(made, batch, quick=False)
        found = {key.replace("graphs", "compiled"): value for key, value in found.items()}
        rows.append({"tokens": COMPILED_TOKENS, "texts": n, "drift": drift, **found})
    return rows


@contextmanager
def _within(limit_s: float) -> Iterator[None]:
    """Raises TimeoutError there when the time is over."""

    def over(*args: object) -> None:
        raise TimeoutError(f"not done within {limit_s:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def speed(
    name: str, length: int, device: torch.device, peak_tflops: float, quick: bool
) -> dict[str, Any]:
    """Tokens a second of a random BERT of this shape, by the token budget of a batch."""
    layers, hidden, _, wide = SHAPES[name]
    row: dict[str, Any] = {"shape": name, "tokens": length, "by_budget": {}}
    # Products of the layers, and attention's two; a multiplication and an addition each.
    flops = 2 * layers * (4 * hidden**2 + 2 * hidden * wide + 2 * length * hidden)
    try:
        run = _shaped(name, device)
    except Exception as exc:
        return {**row, "failed": _why(exc)}
    for budget in BUDGETS[: 1 if device.type == "cpu" else None]:
        batch = texts([length] * max(budget // length, 1), 8_000)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            per_s = rate(lambda batch=batch: run(batch), device, 0.3 if quick else SECONDS)  # type: ignore[misc]
        except Exception as exc:  # out of memory, for one
            row["by_budget"][str(budget)] = {"failed": type(exc).__name__}
            break
        tokens_per_s = per_s * batch.total_tokens
        row["by_budget"][str(budget)] = {
            "tokens_per_s": round(tokens_per_s),
            "share_of_peak": round(tokens_per_s * flops / 1e12 / peak_tflops, 3),
            "memory_mb": round(torch.cuda.max_memory_allocated(device) / 1e6)
            if device.type == "cuda"
            else None,
        }
    return row


def suggestion(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The smallest `max_batch_tokens` beyond which nothing is won, by shape."""
    wanted: dict[str, int] = {}
    for row in rows:
        kept, best = 0, 0.0
        for budget, one in row.get("by_budget", {}).items():
            if one.get("tokens_per_s", 0.0) > GAIN * best:
                kept, best = int(budget), one["tokens_per_s"]
        wanted[row["shape"]] = max(kept, wanted.get(row["shape"], 0))
    return {"max_batch_tokens": wanted}


def graph_suggestion(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The most tokens at which graphs gain, as at all fewer; 0 where they never do."""
    up_to: dict[str, int] = {}
    for name in {row["shape"] for row in rows}:
        own = [row for row in rows if row["shape"] == name and "graphs_ms" in row]
        up_to[name] = 0
        for row in sorted(own, key=lambda row: row["tokens"] * row["texts"]):
            if row["eager_ms"] < graph_trial.GAIN * row["graphs_ms"]:
                break
            up_to[name] = row["tokens"] * row["texts"]
    return {"graphs_up_to_tokens": up_to}


if __name__ == "__main__":
    main()
