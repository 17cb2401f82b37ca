"""The ways of mode `bulk` that live inside Ray, in a process of their own, asked line by line."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .child import answer_lines

LIST_TEXTS = 128
ON_THE_WAY = 4


def by_handle(table: str, sample: int) -> dict[str, Any]:
    """Lists of texts by a handle of the service that runs here; RAY_ADDRESS says where."""
    import pyarrow.parquet as pq
    import ray
    from ray import serve

    texts = pq.read_table(table)["text"].to_pylist()
    ray.init(log_to_driver=False)
    classify = serve.get_app_handle("classify").classify
    classify.remote(texts[0]).result(timeout_s=60)
    began = time.perf_counter()
    waiting: deque[Any] = deque()
    answers: list[dict[str, Any]] = []
    for first in range(0, len(texts), LIST_TEXTS):
        waiting.append(classify.remote(texts[first : first + LIST_TEXTS]))
        if len(waiting) == ON_THE_WAY:
            answers += waiting.popleft().result(timeout_s=600)
    while waiting:
        answers += waiting.popleft().result(timeout_s=600)
    return {
        "n_rows": len(answers),
        "seconds": time.perf_counter() - began,
        "start_s": 0.0,
        "labels": [str(answer.get("label")) for answer in answers[:sample]],
        "errors": sum("error" in answer for answer in answers),
    }


def by_dataset(
    parts: str, one: str, sample: int, args: dict[str, Any], num_cpus: int
) -> dict[str, Any]:
    """`classify_dataset` on a Ray of its own, Parquet to Parquet.

    parts: the table, as a directory of files. one: a file of one row.
    """
    import pyarrow.dataset
    import ray
    import ray.data

    from deployments.bulk import classify_dataset
    from deployments.local import LocalClassifier

    ray.init("local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)

    def label(source: str, target: str) -> tuple[Any, float]:
        output = Path(parts).with_name(target)
        began = time.perf_counter()
        rows = ray.data.read_parquet(source)
        classify_dataset(rows, text_column="text", args=args).write_parquet(str(output))
        seconds = time.perf_counter() - began
        return pyarrow.dataset.dataset(str(output)).to_table().sort_by("id"), seconds

    label(one, "first")  # chooses an engine, which a machine does once
    _, start_s = label(one, "second")
    labelled, seconds = label(parts, "all")
    with LocalClassifier({**args, "engine": {**args["engine"], "num_threads": 1}}) as classifier:
        info = classifier.loaded.engine.info()
    return {
        "n_rows": len(labelled),
        "seconds": seconds,
        "start_s": start_s,
        "labels": [str(one) for one in labelled["label"][:sample].to_pylist()],
        "errors": labelled["label"].null_count,
        "dtype": f"{info.engine} {info.dtype}",
    }


WAYS: dict[str, Callable[..., dict[str, Any]]] = {"by_handle": by_handle, "by_dataset": by_dataset}


if __name__ == "__main__":
    answer_lines(lambda question: WAYS[question.pop("do")](**question))
