"""Whole tables: a table in, the same table with labels out.

- batches: Arrow tables through a LocalClassifier, in one process
- columns: The columns that a table gets, by the command and by Ray Data: names, types, values
- dataset: `classify_dataset`: a Ray Dataset through a pool of actors; the one that imports Ray
- parts: The output as it grows: whole parts on disk, joined to one file at the end
- run: From a table's rows to a table with labels, in order, with a bounded number in memory
- tables: Tables as people have them: csv, tsv, jsonl and parquet, plain or compressed

cli imports run and what it needs: it asks a service over HTTP, and imports neither Ray nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deployments.bulk.dataset import classify_dataset

__all__ = ["classify_dataset"]


def __getattr__(name: str) -> Any:
    # Late, so that the command starts without Ray Data and torch.
    if name == "classify_dataset":
        from deployments.bulk.dataset import classify_dataset

        return classify_dataset
    raise AttributeError(f"module {__name__} has no attribute {name}")
