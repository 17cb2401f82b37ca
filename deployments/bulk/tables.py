"""Tables as people have them: csv, tsv, jsonl and parquet, plain or compressed."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from deployments import installing

Format = Literal["csv", "tsv", "jsonl", "parquet"]
Fields = dict[str, Any]

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_PACKED = (".gz", ".zst")
# Rows of a parquet file that are in memory at a time.
_ROWS_AT_ONCE = 4_096
# csv's own limit of a field, 131,072 characters, is below what the service takes.
_MAX_FIELD_CHARS = 100_000_000


class BadTable(Exception):
    """A file that can't be read or written. The message names the line and the cure."""


@dataclass(frozen=True, slots=True)
class Row:
    """fields: by column, in order. fault: why it has no text, for a row that is not as the others.

    done: how far reading has come, in the unit of `Table.total`.
    """

    fields: Fields
    done: int
    fault: str | None = None


@dataclass(frozen=True)
class Table:
    """A file that is read once, from its first row on.

    columns: names, in order; None where rows differ (jsonl). schema: of parquet. total: bytes of
    the file, or rows of a parquet; 0 where nobody knows.
    """

    columns: Sequence[str] | None
    rows: Iterator[Row]
    total: int
    schema: Any = None


def format_of(path: str, named: Format | None) -> Format:
    """By its name, unless it is `named`.

    Raises:
        BadTable: neither says.
    """
    if named is not None:
        return named
    suffixes = [suffix for suffix in Path(path).suffixes if suffix not in _PACKED]
    found: dict[str, Format] = {
        ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"
    }  # fmt: skip
    if suffixes and suffixes[-1] in found:
        return found[suffixes[-1]]
    raise BadTable(
        f"{path}: of which kind is it? Say --input-format csv, tsv, jsonl or parquet. Save a "
        "spreadsheet as csv first."
    )


@contextmanager
def opened(path: str, kind: Format, encoding: str = "utf-8") -> Iterator[Table]:
    """The table in this file; `-` is stdin.

    Raises:
        BadTable: it can't be read.
    """
    with ExitStack() as stack:
        if kind == "parquet":
            yield _parquet(path, stack)
            return
        stream = _unpacked(path, stack)
        total = 0 if path == "-" else Path(path).stat().st_size
        lines = _Lines(stream, encoding)
        if kind == "jsonl":
            yield Table(None, _json_rows(lines), total)
        else:
            columns, rows = _csv_rows(lines, _DELIMITERS[kind])
            yield Table(columns, rows, total)


def arrow() -> Any:
    """pyarrow, with its parquet.

    Raises:
        BadTable: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise BadTable(f"parquet and zst need pyarrow: {installing('bulk')}") from None
    return pyarrow


class _Lines:
    """Lines of text, with their number and how many bytes of the file they took."""

    def __init__(self, stream: Any, encoding: str) -> None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise BadTable(
                f"there is no encoding {encoding!r}. --encoding takes utf-8, latin-1, gb18030 and "
                "what else Python knows by name."
            ) from None
        self._stream, self._encoding = stream, encoding
        self.number = 0

    @property
    def bytes_read(self) -> int:
        return int(self._stream.position())

    def __iter__(self) -> Iterator[str]:
        for line in self._stream.lines():
            self.number += 1
            try:
                # The mark that Windows editors write in front is no part of a column's name.
                yield line.decode(self._encoding).removeprefix("\ufeff" if self.number == 1 else "")
            except UnicodeDecodeError as exc:
                raise BadTable(
                    f"line {self.number} is not {self._encoding} (byte {exc.start} of it). Save "
                    "the file as UTF-8, or name its encoding: --encoding latin-1 or gb18030, say."
                ) from None


class _Stream:
    """A file's lines as bytes, and how far its own, maybe compressed, bytes are read."""

    def __init__(self, content: BinaryIO, file: BinaryIO | None) -> None:
        self._content, self._file = content, file

    def lines(self) -> Iterator[bytes]:
        try:
            yield from self._content
        except (EOFError, OSError) as exc:
            raise BadTable(f"the file can't be read to its end ({exc}). Is it whole?") from None

    def position(self) -> int:
        return 0 if self._file is None else self._file.tell()


def _unpacked(path: str, stack: ExitStack) -> _Stream:
    if path == "-":
        return _Stream(sys.stdin.buffer, None)
    try:
        file = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115
    except OSError as exc:
        raise BadTable(f"{path} can't be read: {exc.strerror}.") from None
    if path.endswith(".gz"):
        return _Stream(stack.enter_context(gzip.open(file)), file)  # type: ignore[arg-type]
    if path.endswith(".zst"):
        unpacked = arrow().CompressedInputStream(file, "zstd")
        return _Stream(stack.enter_context(io.BufferedReader(unpacked)), file)
    return _Stream(file, file)


def _csv_rows(lines: _Lines, delimiter: str) -> tuple[list[str], Iterator[Row]]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)

    def records() -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as exc:
            raise BadTable(
                f"line {lines.number}: {exc}. Check the quotes: a field that holds one is quoted, "
                'and its quotes are doubled (""). A quote without an end reads on to the last line.'
            ) from None

    source = records()
    columns = next(source, None)
    if columns is None:
        raise BadTable("the file is empty: its first line should name the columns.")
    if len(set(columns)) != len(columns):
        raise BadTable("two columns have the same name. Rename one.")

    def rows() -> Iterator[Row]:
        for values in source:
            fault = None
            if len(values) != len(columns):
                fault = (
                    f"line {lines.number} has {len(values)} fields; the header has {len(columns)}."
                )
            fields = dict(zip(columns, [*values, *[""] * len(columns)], strict=False))
            yield Row(fields, lines.bytes_read, fault)

    return columns, rows()


def _json_rows(lines: _Lines) -> Iterator[Row]:
    for line in lines:
        fields, fault = {}, None
        if not line.strip():
            fault = f"line {lines.number} is empty."
        else:
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError):
                fault = f"line {lines.number} is no JSON."
            if not isinstance(fields, dict):
                fields, fault = {}, f"line {lines.number} is no JSON object."
        yield Row(fields, lines.bytes_read, fault)


def _parquet(path: str, stack: ExitStack) -> Table:
    pa = arrow()
    if path == "-":
        raise BadTable("parquet can't be read from stdin: it is read from its end. Name the file.")
    try:
        file = stack.enter_context(pa.parquet.ParquetFile(path))
    except (OSError, pa.ArrowInvalid) as exc:
        raise BadTable(f"{path} is no parquet file that can be read: {exc}") from None

    def rows() -> Iterator[Row]:
        done = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            for fields in batch.to_pylist():
                done += 1
                yield Row(fields, done)

    return Table(file.schema_arrow.names, rows(), file.metadata.num_rows, file.schema_arrow)


def write(
    path: Path, kind: Format, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], schema: Any
) -> Any:
    """Writes rows to a file of their own, without a header. Returns parquet's schema.

    schema: of parquet; None: what these rows say.

    Raises:
        BadTable: a value is not what the others of its column are.
    """
    if kind == "parquet":
        pa = arrow()
        try:
            table = pa.Table.from_pylist(list(rows), schema=schema)
            pa.parquet.write_table(table, path)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
            raise BadTable(f"a row does not fit the columns of parquet: {exc}") from None
        return table.schema
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "jsonl":
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        else:
            writer = csv.writer(file, delimiter=_DELIMITERS[kind], lineterminator="\n")
            writer.writerows([_text(row.get(name)) for name in columns] for row in rows)
    return None


def _text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def join(target: BinaryIO, kind: Format, parts: Iterable[Path], columns: Sequence[str]) -> None:
    """Writes all parts to `target` as one table."""
    if kind == "parquet":
        pa, writer = arrow(), None
        for part in parts:
            table = pa.parquet.read_table(part)
            writer = writer or pa.parquet.ParquetWriter(target, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        return
    if kind != "jsonl":
        head = io.StringIO(newline="")
        csv.writer(head, delimiter=_DELIMITERS[kind], lineterminator="\n").writerow(columns)
        target.write(head.getvalue().encode())
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                target.write(block)
