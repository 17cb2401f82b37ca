"""From a table's rows to a table with labels, in order, with a bounded number in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from deployments.bulk.columns import arrow_types, check_free, check_there, no_text, value_of
from deployments.bulk.parts import Parts
from deployments.bulk.tables import BadTable, Fields, Format, Row, Table, arrow, format_of, opened
from rayclassify_client import Answer, Client
from rayclassify_client.errors import InvalidInput, PredictionFailed, TooLarge

# Of these the row is to blame; any other error stops the run, which goes on when started again.
_OF_THE_ROW = (InvalidInput, TooLarge, PredictionFailed)


@dataclass(frozen=True)
class Job:
    """What to do. text_column, pair_column: of the input. add: which of `ADDED`, in this order.

    prefix: of the added columns. kind: the input's format, where its name does not say.
    long_text: as the client was told.
    """

    source: str
    output: Path
    text_column: str
    pair_column: str | None = None
    add: tuple[str, ...] = ("label", "score")
    prefix: str = ""
    kind: Format | None = None
    encoding: str = "utf-8"
    force: bool = False
    long_text: str | None = None

    def about(self) -> dict[str, Any]:
        """What the output depends on: a run that goes on must be of the same."""
        whole = Path(self.source).stat() if self.source != "-" else None
        return {
            "input": self.source,
            "size_bytes": whole and whole.st_size,
            "changed_ns": whole and whole.st_mtime_ns,
            "text_column": self.text_column,
            "pair_column": self.pair_column,
            "add": list(self.add),
            "prefix": self.prefix,
            "encoding": self.encoding,
            "long_text": self.long_text,
        }


@dataclass(frozen=True)
class Summary:
    """What became of it. rows: of the input. resumed: of them, those of an earlier run.

    bad_file: names the bad rows; None where there are none.
    """

    rows: int
    resumed: int
    bad: int
    bad_file: Path | None


Progress = Callable[[int, int, int], None]
"""(rows done, how far the input is read, of how much)"""


def run(
    client: Client,
    job: Job,
    progress: Progress = lambda rows, done, total: None,
) -> Summary:
    """Classifies the table and writes the output; started again after a kill it goes on.

    Raises:
        BadTable: a file can't be read or written.
        ClientError: the service can't be asked; what is done stays done.
    """
    kind = format_of(job.source, job.kind)
    output_kind = format_of(job.output.name, None)
    if job.output.suffix == ".zst":
        raise BadTable("zst can be read, not written. Name the output .gz, or without a suffix.")
    with opened(job.source, kind, job.encoding) as table:
        if table.columns is not None:
            check_there((job.text_column, job.pair_column), table.columns)
        parts = Parts(job.output, output_kind, job.about(), job.force or job.source == "-")
        run_ = _Run(job, table, parts, output_kind, progress)
        run_.skip(parts.rows_done)
        run_.classify(client)
    bad_file = run_.finish()
    return Summary(run_.number, run_.resumed, run_.n_bad, bad_file)


class _Run:
    """One run over a table."""

    def __init__(
        self, job: Job, table: Table, parts: Parts, output_kind: Format, progress: Progress
    ) -> None:
        self._job, self._table, self._parts = job, table, parts
        self._progress = progress
        self._output_kind = output_kind
        self.number = 0  # of the row that was read last, from 1
        self.resumed = self.n_bad = 0
        # Read and not written yet, in order: the row, its number, and why it is not asked about.
        self._waiting: deque[tuple[Row, int, str | None]] = deque()
        self._rows: list[Fields] = []
        self._bad: list[Fields] = []
        if table.columns is not None:
            self._name_columns(table.columns)

    def skip(self, n_rows: int) -> None:
        """Rows that an earlier run has written."""
        for row in islice(self._table.rows, n_rows):
            self._name_columns_of(row)
            self.number += 1
        self.resumed = self.number

    def classify(self, client: Client) -> None:
        for result in client.classify_many(self._texts()):
            row, number, _ = self._waiting.popleft()
            if isinstance(result, Answer):
                self._write(row, result)
            elif isinstance(result, _OF_THE_ROW):
                self._write_bad(row, number, result.code, result.message)
            else:
                raise result
            self._write_unasked()
        self._write_unasked()

    def finish(self) -> Path | None:
        """Writes the last part and joins all of them. Returns the file of bad rows."""
        if self._rows or not self.number:
            self._parts.add(self._rows, self._bad)
        return self._parts.finish()

    def _texts(self) -> Iterator[str | tuple[str, str]]:
        job = self._job
        for row in self._table.rows:
            self._name_columns_of(row)
            self.number += 1
            text = row.fields.get(job.text_column)
            pair = "" if job.pair_column is None else row.fields.get(job.pair_column)
            fault = row.fault or no_text(text, job.text_column) or no_text(pair, job.pair_column)
            self._waiting.append((row, self.number, fault))
            if fault is None:
                assert isinstance(text, str)  # noqa: S101 - or it were a fault
                yield text if job.pair_column is None else (text, str(pair))
            else:
                self._write_unasked()  # or a file of nothing else would fill the memory

    def _write_unasked(self) -> None:
        while self._waiting and self._waiting[0][2] is not None:
            row, number, fault = self._waiting.popleft()
            self._write_bad(row, number, "unreadable", str(fault))

    def _write(self, row: Row, answer: Answer | None) -> None:
        told = None if answer is None else answer.raw
        nested = self._output_kind == "jsonl"
        added = {
            f"{self._job.prefix}{name}": value_of(told, name, nested) for name in self._job.add
        }
        self._rows.append({**row.fields, **added})
        if len(self._rows) == self._parts.size:
            self._parts.add(self._rows, self._bad)
            self._rows, self._bad = [], []
        written = self.number - len(self._waiting)
        self._progress(written, row.done, self._table.total)

    def _write_bad(self, row: Row, number: int, code: str, reason: str) -> None:
        self.n_bad += 1
        self._bad.append({"row": number, "code": code, "reason": reason})
        self._write(row, None)

    def _name_columns_of(self, row: Row) -> None:
        """Of tables whose rows name their own, the first row's are all."""
        if self._table.columns is None and not self.number:
            self._name_columns(list(row.fields))

    def _name_columns(self, names: Sequence[str]) -> None:
        job = self._job
        added = [f"{job.prefix}{name}" for name in job.add]
        check_free(added, names, "--prefix predicted_")
        schema = self._table.schema
        if schema is not None:
            pa = arrow()
            types = arrow_types(pa)
            for name, shown in zip(job.add, added, strict=True):
                schema = schema.append(pa.field(shown, types[name]))
        self._parts.columns([*names, *added], schema)
