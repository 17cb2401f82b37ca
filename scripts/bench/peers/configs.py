"""Start commands of the peers that want configuration files first."""

from __future__ import annotations

import json
import shutil
from zipfile import ZipFile

from .peer import SERVERS, Run

MAX_BATCH_SIZE = 32


def mlserver_command(run: Run) -> list[str]:
    """MLServer with a custom runtime and adaptive batching.

    Sources: docs.seldon.ai/mlserver, "Custom Inference Runtimes" and "Adaptive Batching" (off
    unless both limits are set; values are found by experiment). Not its HuggingFace runtime: that
    needs optimum below 2.0, which imports what torch 2.13 no longer has (_attention_scale).
    """
    model = {
        "name": "bert",
        "implementation": "mlserver_runtime.BertRuntime",
        "max_batch_size": MAX_BATCH_SIZE,
        "max_batch_time": 0.01,
    }
    # One process holds the model, beside the one that serves ("Parallel Inference": the default).
    server = {
        "host": "127.0.0.1",
        "http_port": run.port,
        "grpc_port": run.port + 1,
        "metrics_port": run.port + 2,
        "parallel_workers": 1,
        "debug": False,
    }
    for name, content in (("model-settings.json", model), ("settings.json", server)):
        (run.folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return [str(run.bin / "mlserver"), "start", str(run.folder)]


def torchserve_command(run: Run) -> list[str]:
    """TorchServe with a handler that takes whole batches.

    Sources: pytorch.org/serve, "Batch Inference with TorchServe" and "Performance Guide": vary
    batch size and delay; as many workers as pay, with one thread each.
    """
    store = run.folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    manifest = {
        "createdOn": "",
        "runtime": "python",
        "model": {
            "modelName": "bert",
            "handler": "torchserve_handler.py",
            "modelVersion": "1.0",
        },
        "archiverVersion": "0.12.0",
    }
    with ZipFile(store / "bert.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name in ("torchserve_handler.py", "bert.py"):
            archive.write(SERVERS / name, name)
    model = {
        "1.0": {
            "defaultVersion": True,
            "marName": "bert.mar",
            "minWorkers": run.num_threads,
            "maxWorkers": run.num_threads,
            "batchSize": MAX_BATCH_SIZE,
            "maxBatchDelay": 10,
            "responseTimeout": 120,
        }
    }
    lines = [
        f"inference_address=http://127.0.0.1:{run.port}",
        f"management_address=http://127.0.0.1:{run.port + 1}",
        f"metrics_address=http://127.0.0.1:{run.port + 2}",
        "enable_envvars_config=false",
        "job_queue_size=1000",
        f"default_workers_per_model={run.num_threads}",
        "load_models=bert.mar",
        f"models={json.dumps({'bert': model})}",
    ]
    config = run.folder / "config.properties"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["--start", "--foreground", "--ncs", "--disable-token-auth"]
    files = ["--model-store", str(store), "--ts-config", str(config)]
    return [str(run.bin / "torchserve"), *options, *files]
