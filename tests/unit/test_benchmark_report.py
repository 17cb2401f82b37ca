"""The benchmark's tables and plots say what is in its JSON."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.readme import END, START, put_into, readme_block
from scripts.bench.report import page
from scripts.bench.store import Store

HEAD: dict[str, Any] = {
    "machine": {
        "cpu": "Some CPU", "cpu_features": ["avx2", "avx512_vnni"], "cores": 2, "load_before": 0.1,
        "versions": {"ray": "2.60.0", "torch": "2.13.0"}, "commit": "abc", "measured_at": "today",
    },
    "settings": {"threads": 2, "duration_s": 10, "connections": [1, 4, 16, 64, 256]},
    "workload": {
        "texts": 256, "tokens_mean": 72.9, "tokens_p50": 46, "tokens_max": 512, "truncated": 1,
    },
    "complete": True,
}  # fmt: skip
INFO = {"engine": "torch", "dtype": "int8"}


def run(connections: int, requests_per_s: float, p50_ms: float = 10.0, **more: Any) -> Any:
    return {
        "connections": connections, "requests_per_s": requests_per_s, "p50_ms": p50_ms,
        "p95_ms": 2 * p50_ms, "p99_ms": 3 * p50_ms, "statuses": {"200": 500}, "socket_errors": 0,
        "truncated": 1, **more,
    }  # fmt: skip


def peer(name: str, title: str, dtype: str, *runs: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "title": title, "dtype": dtype, "runs": list(runs), "sample": 64, **more}


def measured() -> dict[str, Any]:
    """Every mode, with a peer that can't run and an engine that is not installed."""
    shape = {
        "title": "BERT-base (12 × 768)", "info": INFO, "raw_single_p50_ms": 20.0,
        "raw_rates": [100.0] * 3,
        "runs": [
            run(1, 40, 22.5, raw_texts_per_s=100.0, share=0.4),
            run(64, 92, 600, raw_texts_per_s=100.0, share=0.92),
        ],
        "lists": [
            run(16, 3.0, 900, texts=32, texts_per_s=96.0, raw_texts_per_s=100.0, share=0.96)
        ],
    }  # fmt: skip
    minilm = {**shape, "title": "MiniLM (6 × 384)", "raw_single_p50_ms": 5.0}
    counts = (1, 4, 16, 64, 256)
    return {
        "raw": {
            **HEAD,
            "shapes": {
                "bert-base": {
                    "title": "BERT-base (12 × 768)",
                    "gflops_per_text": 12.76,
                    "engines": [
                        {"title": "transformers float32, 32 texts padded", "name": "transformers",
                         "dtype": "float32", "texts_per_s": 4.0, "gflops": 51.0,
                         "peak_gflops": 100.0, "share_of_peak": 0.51, "batching": "padded"},
                        {"title": "torch int8", "name": "torch", "dtype": "int8",
                         "texts_per_s": 95.0, "gflops": 1_212.0, "peak_gflops": 2_000.0,
                         "share_of_peak": 0.606, "batching": "packed",
                         "few": {"texts_per_s": 61.0, "gflops": 778.0, "peak_gflops": 1_900.0,
                                 "share_of_peak": 0.41}},
                        {"title": "onnxruntime int8", "name": "onnxruntime", "dtype": "int8",
                         "unavailable": "onnxruntime is not installed"},
                    ],
                }
            },
        },
        "service": {
            **HEAD,
            "shapes": {
                "bert-base": shape,
                "minilm": minilm,
                "none": {
                    "title": "no model",
                    "info": {"engine": "none", "dtype": "none"},
                    "runs": [run(n, 20 * n) for n in counts],
                    "lists": [
                        {**run(4, 70.0, texts=256, texts_per_s=17_920.0),
                         "statuses": {"200": 700, "408": 1, "429": 1_200}},
                    ],
                },
            },
        },
        "peers": {
            **HEAD,
            "shape": "BERT-base (12 × 768)",
            "rows": [
                peer("ours", "ours, engine: auto", "auto", run(16, 80), run(64, 92, 650.0),
                     info=INFO, agree=64),
                peer("ours", "ours", "float32", run(64, 15), agree=64),
                peer("ours", "ours", "bfloat16", run(64, 50), agree=64),
                peer("ray-chain", "Ray Serve, documentation-style chain", "float32", run(64, 4),
                     agree=64, setup="four deployments"),
                peer("fastapi", "FastAPI + transformers pipeline", "float32",
                     run(64, 11, socket_errors=3), agree=63, setup="one queue"),
                {"name": "mlserver", "title": "MLServer", "dtype": "float32",
                 "unavailable": "needs | Python 3.10"},
                peer("ray-chain", "Ray Serve, documentation-style chain", "bfloat16", run(64, 10),
                     agree=64, setup="four deployments"),
                peer("fastapi", "FastAPI + transformers pipeline", "bfloat16", run(64, 8),
                     agree=64, setup="one queue"),
            ],
            "null": [
                peer("ours", "ours", "none", *(run(n, 16 * n) for n in counts)),
                peer("litserve", "LitServe", "none", *(run(n, 7 * n) for n in counts)),
            ],
        },
        "choice": {
            **HEAD, "shape": "BERT-base (12 × 768)",
            "rows": [
                {"dtype": "auto", "info": INFO, "errors": 0,
                 "rates": {"1": [19.0, 20.0, 18.0], "64": [46.0, 48.0, 47.0]}},
                {"dtype": "int8", "info": INFO, "errors": 0,
                 "rates": {"1": [20.0, 20.0, 20.0], "64": [46.0, 48.0, 94.0]}},
                {"dtype": "float32", "info": INFO, "errors": 1,
                 "rates": {"1": [10.0, 40.0, 10.0], "64": [15.0, 15.0, 15.0]}},
            ],
        },
        "openloop": {
            **HEAD, "shape": "MiniLM (6 × 384)", "info": INFO, "p50_at_1_ms": 8.0,
            "capacity_per_s": 300.0,
            "rows": [
                {"share": share, "rate_per_s": 300 * share, "p50_ms": 10.0, "p95_ms": 20.0,
                 "p99_ms": p99, "errors": 0, "client_cpu": 0.02, "lag_p99_ms": 0.4,
                 "ideal_p50_ms": 8.0, "ideal_p99_ms": p99 / 2}
                for share, p99 in ((0.25, 15.0), (0.5, 20.0), (0.75, 30.0), (0.9, 48.0))
            ],
            "own_device": {
                "pass": {"start_s": 0.002, "token_s": 9e-5, "square_s": 0.0},
                "capacity_per_s": 400.0, "p50_at_1_ms": 11.0,
                "rows": [
                    {"share": 0.5, "rate_per_s": 200.0, "p50_ms": 12.0, "p95_ms": 20.0,
                     "p99_ms": 26.0, "errors": 0, "client_cpu": 0.02, "lag_p99_ms": 0.4,
                     "ideal_p50_ms": 10.0, "ideal_p99_ms": 20.0},
                ],
            },
        },
        "growth": {
            **HEAD, "shape": "MiniLM (6 × 384)", "info": INFO, "waiting_tokens_per_s": 20_000.0,
            "replicas": [
                {"kind": kind, "nodes": 1, "nodes_with_classifier": 1,
                 "replicas": {"Classifier": n, "Tokenizer": 1}, **run(256, 270 * n)}
                for kind in ("waiting", "none") for n in (1, 2, 4)
            ],
            "cost": [
                {"tokens": n, "engine_ms": n / 40, "service_ms": n / 38, "errors": 0}
                for n in (8, 64, 512)
            ],
        },
        "bulk": {
            **HEAD, "n_rows": 20_000,
            "rows": [
                {"title": "a loop", "dtype": "float32", "n_rows": 900, "rows_per_s": 90.0,
                 "start_s": 0.0, "errors": 0, "agree": 64, "sample": 64},
                {"title": "Ray Data", "dtype": "torch int8", "n_rows": 20_000,
                 "rows_per_s": 1_800.0, "start_s": 9.5, "errors": 2, "agree": 63, "sample": 64},
                {"title": "a handle", "unavailable": "no | Ray"},
            ],
        },
    }  # fmt: skip


def test_the_page_holds_every_mode_and_why_something_has_no_figure() -> None:
    text = page(measured())
    assert "| torch int8 | 95.0 | 1,212 | 61% of 2,000 | 61.0 texts/s, 41% | packed |" in text
    assert "onnxruntime is not installed" in text
    assert "| 64 | 92.0 | 92% of 100.0 |" in text
    assert "| 32 | 16 | 96 | 96% of 100.0 |" in text
    assert "| 256 | 4 | 17,920 | – |" in text
    assert "Answers by status: 200 700, 408 1, 429 1,200. As many" in text
    assert "can't run: needs / Python 3.10" in text
    assert "63 of 64" in text
    assert "| 90% | 270 |" in text
    assert "| 8.0 ms (1.25 ×) | 24.0 ms (2.00 ×) |" in text
    assert "A pass takes 2.0 ms and 90 µs a token; capacity 400 requests/s" in text
    assert "| 10.0 ms (1.20 ×) | 20.0 ms (1.30 ×) |" in text
    assert "| Ray Data | torch int8 | 63 of 64 | 1,800 | 20.0 × | 20,000 | 9.5 s | 2 |" in text
    assert "can't run: no / Ray" in text
    # Of the precision with the best median, turn by turn: one lucky turn of another says nothing.
    assert "| auto, of the best precision's | 0.95 | 1.00 |  |" in text
    assert "2 cores of Some CPU (avx512_vnni)" in text


def test_an_interrupted_mode_says_so() -> None:
    modes = measured()
    modes["openloop"]["complete"] = False
    assert "Interrupted" in page(modes)
    assert "Interrupted" not in page(measured())


def test_a_mode_interrupted_anywhere_still_makes_a_page() -> None:
    for name, part in measured().items():
        rows = {key: [] for key in ("rows", "null", "replicas", "cost") if key in part}
        shapes = {"shapes": {}} if "shapes" in part else {}
        begun = {
            **HEAD, "complete": False, "shape": "", "waiting_tokens_per_s": 1.0, "n_rows": 1
        }  # fmt: skip
        assert page({name: {**begun, **rows, **shapes}})


def test_the_readme_shows_the_best_run_of_each_and_all_errors() -> None:
    block = readme_block(measured())
    assert "| ours, engine: auto | int8 | 92.0 | 650 ms |" in block
    assert "| ours | bfloat16 | 50.0 |" in block
    assert "| FastAPI + transformers pipeline | float32 | 11.0 | 10 ms |" in block
    # Only one row has errors, and labels of its own.
    assert "Errors: FastAPI + transformers pipeline 3." in block
    assert "ours, engine: auto 64 of 64" in block
    assert "FastAPI + transformers pipeline 63 of 64" in block
    assert "ours 4,096; LitServe 1,792" in block
    readme = f"before\n{START}\nold\n{END}\nafter\n"
    put = put_into(readme, block)
    assert put.startswith(f"before\n{START}\n")
    assert put.endswith(f"{END}\nafter\n")
    assert "old" not in put
    assert put_into(put, block) == put


def test_the_readme_shows_what_auto_took_once() -> None:
    modes = measured()
    modes["peers"]["rows"][0]["info"] = {**INFO, "dtype": "bfloat16"}
    block = readme_block(modes)
    assert "| ours, engine: auto | bfloat16 |" in block
    assert "| ours | bfloat16 |" not in block


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_growth_interrupted_before_the_cost_of_a_text_is_drawn(tmp_path: Path) -> None:
    from scripts.bench.plots import draw

    assert len(draw({"growth": {**measured()["growth"], "cost": []}}, tmp_path)) == 2


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_every_plot_has_both_themes_and_the_same_bytes_again(tmp_path: Path) -> None:
    from scripts.bench.plots import PLOTS, draw

    made = draw(measured(), tmp_path)
    assert len(made) == 2 * len(PLOTS)
    first = {path: path.read_bytes() for path in made}
    assert {path: path.read_bytes() for path in draw(measured(), tmp_path)} == first
    light = (tmp_path / "peers-light.svg").read_text(encoding="utf-8")
    assert "Some CPU" in light
    assert "FastAPI" in light


def test_a_mode_measured_again_replaces_its_own_part_only(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps({"modes": measured()}), encoding="utf-8")
    store = Store(path)
    store.begin("raw", {"threads": 1})
    store.save()
    modes = json.loads(path.read_text(encoding="utf-8"))["modes"]
    assert modes["raw"]["settings"] == {"threads": 1}
    assert not modes["raw"]["complete"]
    assert modes["peers"] == measured()["peers"]


def test_only_a_mode_measured_to_its_end_here_and_now_is_done(tmp_path: Path) -> None:
    store = Store(tmp_path / "benchmark.json")
    part = store.begin("raw", {})
    assert not store.is_done("raw")
    part["complete"] = True
    assert store.is_done("raw")
    part["machine"]["commit"] = "another"
    assert not store.is_done("raw")
