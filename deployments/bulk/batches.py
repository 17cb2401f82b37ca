"""Arrow tables through a LocalClassifier, in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.bulk.columns import ADDED, arrow_types, check_free, check_there, no_text, value_of
from deployments.bulk.tables import BadTable, arrow
from deployments.engines.machine import threads_for
from deployments.local import LocalClassifier
from deployments.pipeline import errors
from deployments.pipeline.batcher import MAX_FAILURES
from deployments.pipeline.types import Answer
from deployments.privacy.coredump import forbid_core_dumps
from deployments.settings import Settings

ERROR = "error"
"""The column that says why a row has no label: `code: reason`; null where it has one."""

# Of these the row is to blame; any other error ends the job, as a service's would.
_OF_THE_ROW = (
    errors.InvalidInput,
    errors.EmptyText,
    errors.TooLarge,
    errors.TextTooLong,
    errors.PredictionFailed,
)
_CODES = {error.code for error in _OF_THE_ROW}


@dataclass(frozen=True, slots=True)
class Columns:
    """text, pair: which hold the texts, and their second halves. add: of `ADDED`, in this order.

    prefix: of the added columns.
    """

    text: str
    pair: str | None = None
    add: Sequence[str] = ("label", "score")
    prefix: str = ""

    @property
    def added(self) -> list[str]:
        """Names of the columns that a table gets."""
        return [f"{self.prefix}{name}" for name in (*self.add, ERROR)]

    def check(self, there: Mapping[str, Any] | None) -> None:
        """there: the table's columns and their Arrow types; None where nobody knows them.

        Raises:
            BadTable: one is missing, holds no texts or is there already, or can't be added.
        """
        if unknown := set(self.add) - set(ADDED):
            raise BadTable(f"add: {min(unknown)}; there are {', '.join(ADDED)}.")
        if there is None:
            return
        check_there((self.text, self.pair), list(there))
        check_free(self.added, list(there), 'prefix="predicted_"')
        for column in filter(None, (self.text, self.pair)):
            if not _holds_texts(there[column]):
                raise BadTable(f"column {column} holds {there[column]}, no texts.")


class BatchClassifier:
    """Arrow tables in, the same with more columns out, by a LocalClassifier of its own.

    args: as LocalClassifier's. max_rows: of a table. num_cpus: what Ray gave this process; its
    threads, where args name none. options: of `LocalClassifier.classify`.

    Raises:
        ModelNotFound, EngineUnavailable, ModelBroken: the model can't be run here.
    """

    def __init__(
        self,
        settings: Settings,
        columns: Columns,
        max_rows: int,
        max_batch_tokens: int,
        num_cpus: float,
        options: dict[str, Any],
    ) -> None:
        forbid_core_dumps()
        limits = settings.limits.model_copy(update={"max_batch_texts": max_rows})
        num_threads = settings.engine.num_threads or threads_for(num_cpus)
        engine = settings.engine.model_copy(update={"num_threads": num_threads})
        settings = settings.model_copy(update={"limits": limits, "engine": engine})
        self._columns, self._options = columns, options
        self._classifier = LocalClassifier(settings, max_batch_tokens=max_batch_tokens)

    def __call__(self, table: Any) -> Any:
        """pyarrow.Table → pyarrow.Table, rows in order.

        Raises:
            ServiceError: not a row is to blame but the model or the machine.
        """
        pa = arrow()
        columns = self._columns
        texts = table.column(columns.text).to_pylist()
        pairs = None if columns.pair is None else table.column(columns.pair).to_pylist()
        rows = self._answers(texts, pairs)
        types = arrow_types(pa)
        for name, shown in zip(columns.add, columns.added, strict=False):
            values = [None if "error" in row else value_of(row, name) for row in rows]
            table = table.append_column(shown, pa.array(values, types[name]))
        return table.append_column(columns.added[-1], pa.array(map(_reason, rows), pa.string()))

    def close(self) -> None:
        self._classifier.close()

    def _answers(self, texts: list[Any], pairs: list[Any] | None) -> list[Answer]:
        """One for each row, in order; `{"error": ...}` of a bad one."""
        column, other = self._columns.text, self._columns.pair
        rows: list[Answer] = [{}] * len(texts)
        asked = []
        for i, text in enumerate(texts):
            fault = no_text(text, column) or (no_text(pairs[i], other) if pairs else None)
            if fault is None:
                asked.append(i)
            else:
                rows[i] = {"error": {"code": "unreadable", "message": fault}}
        if not asked:
            return rows
        answers: Any = self._classifier.classify(
            [texts[i] for i in asked],
            [pairs[i] for i in asked] if pairs else None,
            **self._options,
        )
        for i, answer in zip(asked, answers, strict=True):
            rows[i] = answer
        _check_failures([rows[i] for i in asked])
        return rows


def _check_failures(answers: Sequence[Answer]) -> None:
    """Raises the error of the model or the machine, if there is one."""
    failed = [answer["error"] for answer in answers if "error" in answer]
    for error in failed:
        if error["code"] not in _CODES:
            raise errors.ServiceError(error["message"])
    # As the batcher has it: a model that fails on so many texts, and works on none, is at fault.
    n_failed = sum(error["code"] == errors.PredictionFailed.code for error in failed)
    if n_failed == len(answers) > MAX_FAILURES:
        raise errors.PredictionFailed(
            f"The model failed on all {n_failed} texts of a batch. Look into this actor's log."
        )


def _reason(row: Answer) -> str | None:
    error = row.get("error")
    return None if error is None else f"{error['code']}: {error['message']}"


def _holds_texts(type_: Any) -> bool:
    types = arrow().types
    if types.is_dictionary(type_):
        return _holds_texts(type_.value_type)
    # null: of a first block that holds no text.
    return bool(
        types.is_string(type_)
        or types.is_large_string(type_)
        or types.is_string_view(type_)
        or types.is_null(type_)
    )
