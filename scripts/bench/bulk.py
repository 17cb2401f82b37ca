"""Mode `bulk`: one table of reviews, labelled by each way that there is, with the demo model.

What one row takes by a way is its start. The rate counts it: it is what a person waits for.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests

from deployments.bench.client import Endpoint
from rayclassify_client import Answer, Client

from .child import ChildFailed, child
from .load import LoadFailed
from .models import DEMO
from .peers import PeerUnavailable, running
from .peers.agreement import expected_labels
from .peers.catalog import FASTAPI, shared_out
from .process import our_environment
from .service import Service, ServiceFailed, free_port, running_service
from .session import Session
from .workload import SEED, encode, reviews

SAMPLE = 64
PART_ROWS = 1_024
TEXT = "text"
LOOP = "FastAPI + transformers pipeline, one `requests.post` a row"

ONE_WORKER = replace(
    FASTAPI,
    name="fastapi-one",
    environment=FASTAPI.name,
    setup="one worker with all threads, as a loop never asks two texts at once",
    command=lambda run: [*FASTAPI.command(run)[:-1], "1"],
    env=lambda run: shared_out(run, 1),
)

Label = Callable[[Sequence[str]], list[str]]
"""All these texts, labelled in order; may take a while."""


def measure_bulk(session: Session) -> None:
    """Each way alone on the machine; the service's three share one service."""
    with session.mode("bulk", 6) as part, TemporaryDirectory() as folder:
        session.step("bulk: labels by transformers alone")
        texts = table_of(reviews(), session.plan.rows)
        table = write(texts, Path(folder, "table.parquet"))
        write(texts[:1], Path(folder, "one.parquet"))
        # Ray Data shares out files.
        parts = Path(folder, "parts")
        parts.mkdir()
        for first in range(0, len(texts), PART_ROWS):
            write(texts[first : first + PART_ROWS], parts / f"{first}.parquet", first)
        part.update(
            model=DEMO.name,
            workload=encode(str(DEMO), texts[:1_000]).statistics(),
            n_rows=len(texts),
            rows=[],
        )
        expected = expected_labels(DEMO, texts[:SAMPLE])

        def add(title: str, measure: Callable[[], dict[str, Any]]) -> None:
            session.step(f"bulk: {title}")
            row: dict[str, Any] = {"title": title}
            part["rows"].append(row)
            try:
                row |= measure()
                labels = row.pop("labels")[:SAMPLE]
                row |= {"agree": sum(map(str.__eq__, labels, expected)), "sample": len(labels)}
            except (ChildFailed, PeerUnavailable, ServiceFailed, LoadFailed, OSError) as exc:
                row["unavailable"] = str(exc)

        add(LOOP, lambda: _loop(session, texts))
        changes = session.service_changes(DEMO)
        with running_service(changes, session.plan.serve_config) as service:
            precision = f"{service.info['engine']} {service.info['dtype']}"
            ours: dict[str, Any] = {"dtype": precision}
            add("`rayclassify classify TABLE`", lambda: ours | _command(service, table))
            add("`Client.classify_many`", lambda: ours | _many(service, texts))
            add("a handle, lists of 128, 4 on the way", lambda: ours | _handle(service, table))
        add("Ray Data: `classify_dataset`, no service", lambda: _dataset(session, parts))


def table_of(reviews_: Sequence[str], n_rows: int) -> list[str]:
    """So many texts: all reviews in an order by chance, again and again."""
    shuffled = random.Random(SEED).sample(list(reviews_), len(reviews_))
    return [shuffled[i % len(shuffled)] for i in range(n_rows)]


def write(texts: Sequence[str], path: Path, first: int = 0) -> Path:
    """A Parquet file of the columns id, from `first` up, and text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": range(first, first + len(texts)), TEXT: texts}), path)
    return path


def figures(
    n_rows: int, seconds: float, start_s: float, labels: list[str], errors: int = 0
) -> dict[str, Any]:
    """One way's figures. seconds: of all rows, with the start. labels: of the first ones."""
    return {
        "n_rows": n_rows,
        "seconds": round(seconds, 2),
        "start_s": round(start_s, 2),
        "rows_per_s": round(n_rows / seconds, 1),
        "errors": errors,
        "labels": labels,
    }


def _loop(session: Session, texts: Sequence[str]) -> dict[str, Any]:
    """As many rows as it gets through in the time of a run."""
    with running(
        ONE_WORKER,
        model_dir=DEMO,
        dtype="float32",
        num_threads=session.plan.threads,
        port=free_port(),
    ) as endpoint:
        _ask(endpoint, texts[0])
        labels, began = [], time.perf_counter()
        for text in texts:
            labels.append(_ask(endpoint, text))
            seconds = time.perf_counter() - began
            if seconds >= session.plan.duration_s and len(labels) >= SAMPLE:
                break
        row = figures(len(labels), seconds, 0.0, labels)
        return {**row, "dtype": "float32", "setup": ONE_WORKER.setup}


def _ask(endpoint: Endpoint, text: str) -> str:
    answer = requests.post(endpoint.url + endpoint.path, json={"text": text}, timeout=60)
    answer.raise_for_status()
    return endpoint.label_of(answer.content)


def _command(service: Service, table: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    _, start_s = _classify(service, table.with_name("one.parquet"))
    output, seconds = _classify(service, table)
    labelled = pq.read_table(output)["label"]
    sample = [str(label) for label in labelled[:SAMPLE].to_pylist()]
    return figures(len(labelled), seconds, start_s, sample, labelled.null_count)


def _classify(service: Service, table: Path) -> tuple[Path, float]:
    output = table.with_suffix(".out.parquet")
    command = [sys.executable, "-m", "deployments.cli", "classify", str(table)]
    options = ["--text-column", TEXT, "-o", str(output), "--url", service.endpoint.url]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, env=our_environment()
    )
    if done.returncode not in (0, 1):
        raise ServiceFailed(done.stderr[-300:])
    return output, time.perf_counter() - began


def _many(service: Service, texts: Sequence[str]) -> dict[str, Any]:
    with Client(service.endpoint.url, priority="bulk", timeout_s=600) as client:
        began = time.perf_counter()
        results = list(client.classify_many(texts))
        seconds = time.perf_counter() - began
    good = [isinstance(result, Answer) for result in results]
    sample = [str(getattr(result, "label", result)) for result in islice(results, SAMPLE)]
    return figures(len(results), seconds, 0.0, sample, good.count(False))


def _handle(service: Service, table: Path) -> dict[str, Any]:
    ray = {
        "RAY_ADDRESS": service.ray_address,
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": str(service.run_dir),
    }
    with child("scripts.bench.bulk_child", ray) as caller:
        return figures(**caller.ask(do="by_handle", table=str(table), sample=SAMPLE))


def _dataset(session: Session, parts: Path) -> dict[str, Any]:
    plan = session.plan
    args = {"model": {"id": str(DEMO)}, "engine": {"name": plan.engine, "dtype": plan.dtype}}
    with child("scripts.bench.bulk_child") as worker:
        told = worker.ask(
            do="by_dataset",
            parts=str(parts),
            one=str(parts.with_name("one.parquet")),
            sample=SAMPLE,
            args=args,
            num_cpus=plan.threads,
        )
    dtype = told.pop("dtype")
    return {**figures(**told), "dtype": dtype}
