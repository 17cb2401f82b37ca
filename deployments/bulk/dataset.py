"""`classify_dataset`: a Ray Dataset through a pool of actors; the one here that imports Ray.

```python
labelled = classify_dataset(ray.data.read_parquet("reviews/"), text_column="review")
labelled.write_parquet("labelled/")
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
from ray.data import ActorPoolStrategy, Dataset

from deployments.bulk.batches import BatchClassifier, Columns
from deployments.engines.base import EngineUnavailable
from deployments.http.call import read_call
from deployments.model.deployed import as_deployed
from deployments.pipeline.errors import InvalidInput
from deployments.settings import Settings
from deployments.user_config import ClassifierUserConfig

OPTIONS = {"top_k", "truncation", "long_text", "raw_scores", "threshold"}
# Fills a GPU's pass of 32,768 tokens with texts of 64.
BATCH_SIZE = 512


def classify_dataset(
    ds: Dataset,
    *,
    text_column: str,
    pair_column: str | None = None,
    args: dict[str, Any] | Settings | None = None,
    add: Sequence[str] = ("label", "score"),
    prefix: str = "",
    concurrency: int | tuple[int, int | None] = (1, None),
    num_cpus: float = 1,
    num_gpus: float = 0,
    batch_size: int = BATCH_SIZE,
    max_batch_tokens: int = ClassifierUserConfig().max_batch_tokens,
    **options: Any,
) -> Dataset:
    """The dataset with the columns of `add`, and `error`: null, or why this row has no label.

    Lazy, as all of Ray Data: blocks stream through actors that hold a model each. Rows keep their
    order within a block. Columns that nobody knows yet are looked up in the first rows.

    args: what stands under `args:` of serve_config.yaml. add: of label, score, scores (as JSON),
    labels, tokens, truncated. prefix: of the added columns. concurrency: actors, or the least and
    the most of them. num_cpus, num_gpus: of each actor; it has as many threads as CPUs.
    batch_size: rows that an actor gets at once. max_batch_tokens: of a forward pass; 32768 for a
    GPU. options: top_k, truncation, long_text, raw_scores, threshold, as over HTTP.

    Raises:
        BadTable: a column is missing, holds no texts or is there already.
        pydantic.ValidationError: an unknown key or a wrong value in `args`.
        InvalidInput: an unknown option, or a wrong value of one.
        ModelNotFound: the model's files show that it can't be run.
        EngineUnavailable: `num_gpus`, and a torch that knows no GPU.
        ValueError: `concurrency` or `batch_size` below 1.
    """
    settings = args if isinstance(args, Settings) else Settings.model_validate(args or {})
    if unknown := set(options) - OPTIONS:
        raise InvalidInput(f"no option {min(unknown)}; there are {', '.join(sorted(OPTIONS))}.")
    read_call("", options, settings.limits)
    if num_gpus:
        settings = _on_gpu(settings, num_gpus)
    columns = Columns(text_column, pair_column, tuple(add), prefix)
    columns.check(_columns_of(ds))
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more.")
    return ds.map_batches(
        BatchClassifier,
        fn_constructor_kwargs={
            "settings": as_deployed(settings),
            "columns": columns,
            "max_rows": batch_size,
            "max_batch_tokens": max_batch_tokens,
            "num_cpus": num_cpus,
            "options": options,
        },
        compute=_pool(concurrency),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
        batch_size=batch_size,
        batch_format="pyarrow",
        udf_modifying_row_count=False,
    )


def _pool(concurrency: int | tuple[int, int | None]) -> ActorPoolStrategy:
    if isinstance(concurrency, int):
        return ActorPoolStrategy(size=concurrency)
    least, most = concurrency
    return ActorPoolStrategy(min_size=least, max_size=most)


def _on_gpu(settings: Settings, num_gpus: float) -> Settings:
    """With a device that an actor without a GPU refuses, rather than run on its CPUs."""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        raise EngineUnavailable(
            f"num_gpus is {num_gpus:g}; this torch is built without CUDA. Install a CUDA build of "
            "torch here and on the workers, or leave num_gpus at 0."
        )
    if settings.engine.device != "auto":
        return settings
    return settings.model_copy(
        update={"engine": settings.engine.model_copy(update={"device": "cuda"})}
    )


def _columns_of(ds: Dataset) -> dict[str, Any] | None:
    """Columns and their Arrow types; None of a dataset without rows that names none."""
    schema = ds.schema()
    if schema is None:
        return None
    types = (kind if isinstance(kind, pa.DataType) else pa.null() for kind in schema.types)
    return dict(zip(schema.names, types, strict=True))
