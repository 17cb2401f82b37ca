"""The peers, their pinned versions, and whose advice their settings follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .configs import MAX_BATCH_SIZE, mlserver_command, torchserve_command
from .peer import SERVERS, Peer, Run

PRECISIONS = ("float32", "bfloat16")
TORCH = ("torch==2.13.0", "transformers==5.23.0")


def json_body(wrap: Callable[[str], Any]) -> Callable[[str], bytes]:
    return lambda text: json.dumps(wrap(text), ensure_ascii=False).encode()


def label_field(answer: bytes) -> str:
    return str(json.loads(answer)["label"])


def script(name: str) -> Callable[[Run], list[str]]:
    return lambda run: [str(run.bin / "python"), str(SERVERS / name)]


def shared_out(run: Run, workers: int, **values: object) -> dict[str, str]:
    """`workers` processes that share the threads; PEER_<NAME>=value for the other settings."""
    threads = str(max(1, run.num_threads // workers))
    named = {f"PEER_{name.upper()}": str(value) for name, value in values.items()}
    return {
        "PEER_WORKERS": str(workers),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        **named,
    }


def litserve_env(run: Run) -> dict[str, str]:
    """Sizes found by trying, as its page on batching advises (docs/log.md has the figures).

    More than one worker, and the fast queue, as in its BERT benchmark.
    """
    if run.dtype == "none":
        return shared_out(
            run, 1, api_servers=1, fast_queue=1, max_batch_size=256, batch_timeout_s=0.001
        )
    return shared_out(
        run, run.num_threads, api_servers=1, fast_queue=1, max_batch_size=8, batch_timeout_s=0.01
    )


def bentoml_env(run: Run) -> dict[str, str]:
    """A worker a core, as its page "Parallelize requests handling" says for CPUs."""
    workers = 1 if run.dtype == "none" else run.num_threads
    return shared_out(run, workers, max_batch_size=MAX_BATCH_SIZE)


RAY_CHAIN = Peer(
    name="ray-chain",
    title="Ray Serve, documentation-style chain",
    setup="four deployments, one text per call, @serve.batch of 32 within 10 ms, default flags; "
    "max_ongoing_requests raised, as Serve's own warning asks",
    dtypes=(*PRECISIONS, "none"),
    requirements=(),
    packages=("ray", "torch", "transformers"),
    command=script("ray_chain.py"),
    path="/classify",
    body=json_body(lambda text: {"text": text}),
    label_of=label_field,
)

FASTAPI = Peer(
    name="fastapi",
    title="FastAPI + transformers pipeline",
    setup="a worker a core; in each one queue, one thread that runs the pipeline, no batches: as "
    "FastAPI's page on workers and transformers' pages on "
    "pipelines in web servers and on batching say for CPUs",
    dtypes=PRECISIONS,
    requirements=("fastapi==0.165.0", "uvicorn[standard]==0.54.0", *TORCH),
    packages=("fastapi", "uvicorn", "torch", "transformers"),
    command=lambda run: [
        *(str(run.bin / "uvicorn"), "fastapi_pipeline:app", "--app-dir", str(SERVERS)),
        *("--host", "127.0.0.1", "--port", str(run.port), "--no-access-log"),
        *("--workers", str(run.num_threads)),  # FastAPI's page "Server Workers"
    ],
    env=lambda run: shared_out(run, run.num_threads),
    path="/classify",
    body=json_body(lambda text: {"text": text}),
    label_of=label_field,
)

LITSERVE = Peer(
    name="litserve",
    title="LitServe",
    setup="laid out as LitServe's own BERT benchmark: a worker a core with one thread each, fast "
    "queue; batches of 8 within 10 ms (null model: one worker, 256 within 1 ms), found by trying",
    dtypes=(*PRECISIONS, "none"),
    requirements=("litserve==0.2.19", *TORCH),
    packages=("litserve", "torch", "transformers"),
    command=script("litserve_api.py"),
    env=litserve_env,
    path="/classify",
    body=json_body(lambda text: {"text": text}),
    label_of=label_field,
)

BENTOML = Peer(
    name="bentoml",
    title="BentoML",
    setup="a worker a core with one thread each, adaptive batching up to 32, latency limit out of "
    "reach so that nothing is refused",
    dtypes=(*PRECISIONS, "none"),
    requirements=("bentoml==1.4.40", *TORCH),
    packages=("bentoml", "torch", "transformers"),
    command=lambda run: [
        *(str(run.bin / "bentoml"), "serve", "bentoml_service:Classifier"),
        *("--working-dir", str(SERVERS), "--host", "127.0.0.1", "--port", str(run.port)),
    ],
    env=bentoml_env,
    path="/classify",
    body=json_body(lambda text: {"texts": [text]}),
    label_of=lambda answer: str(json.loads(answer)[0]["label"]),
)

INFINITY = Peer(
    name="infinity",
    title="infinity",
    setup="torch engine, batches of 32, its own queue sorted by length",
    dtypes=PRECISIONS,
    # Its typer, 0.12, breaks under click 8.2 and later.
    requirements=("infinity-emb[server,torch]==0.0.78", "click==8.1.8", "torch==2.13.0"),
    packages=("infinity-emb", "torch", "transformers", "sentence-transformers"),
    command=lambda run: [
        *(str(run.bin / "infinity_emb"), "v2", "--model-id", str(run.model_dir)),
        *("--served-model-name", "bert", "--engine", "torch", "--device", "cpu"),
        *("--dtype", run.dtype, "--batch-size", str(MAX_BATCH_SIZE)),
        *("--host", "127.0.0.1", "--port", str(run.port), "--log-level", "warning"),
    ],
    path="/classify",
    body=json_body(lambda text: {"input": [text], "model": "bert"}),
    label_of=lambda answer: str(
        max(json.loads(answer)["data"][0], key=lambda row: row["score"])["label"]
    ),
)


MLSERVER = Peer(
    name="mlserver",
    title="MLServer",
    setup="custom runtime, adaptive batching of 32 within 10 ms, one process for the model",
    dtypes=(*PRECISIONS, "none"),
    # Its workers ask for an event loop before they make one, which later uvloops refuse.
    requirements=("mlserver==1.7.1", "uvloop==0.21.0", *TORCH),
    packages=("mlserver", "torch", "transformers"),
    command=mlserver_command,
    path="/v2/models/bert/infer",
    body=json_body(
        lambda text: {
            "inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]
        }
    ),
    label_of=lambda answer: str(json.loads(answer)["outputs"][0]["data"][0]),
)

TORCHSERVE = Peer(
    name="torchserve",
    title="TorchServe",
    setup="batches of 32 within 10 ms, a worker a core with one thread each, as its performance "
    "guide says",
    dtypes=PRECISIONS,
    requirements=("torchserve==0.12.0", *TORCH),
    packages=("torchserve", "torch", "transformers"),
    command=torchserve_command,
    env=lambda run: {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    path="/predictions/bert",
    body=json_body(lambda text: {"text": text}),
    label_of=label_field,
)

PEERS: list[Peer] = [RAY_CHAIN, FASTAPI, LITSERVE, BENTOML, INFINITY, MLSERVER, TORCHSERVE]
