"""The output as it grows: whole parts on disk, joined to one file at the end.

A part holds the next `ROWS` rows of the input and is there wholly or not at all. So a run that was
killed goes on behind its last whole part, and the file itself is never half a file.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.bulk.tables import BadTable, Format, join, write
from deployments.model.cache import write_wholly

ROWS = 5_000
_MANIFEST = "manifest.json"


class Parts:
    """Parts beside `output`, in the folder `<output>.parts`.

    about: what the rows depend on: input, columns, options. A folder of another run is refused.
    size: rows of a part, but the last. rows_done: rows of the input that whole parts hold.

    Raises:
        BadTable: the output is there already, or the folder belongs to something else.
    """

    def __init__(self, output: Path, kind: Format, about: Mapping[str, Any], force: bool) -> None:
        self._output, self._kind = output, kind
        self._folder = output.with_name(f"{output.name}.parts")
        self._columns: list[str] = []
        self._schema: Any = None
        if force:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif output.exists():
            raise BadTable(f"{output} is there already. Name another, or say --force.")
        self.size = ROWS
        self._begin({**about, "rows_of_a_part": self.size})
        self._n = 0
        while self._whole(self._n).exists():
            self._n += 1

    @property
    def rows_done(self) -> int:
        return self._n * self.size

    def columns(self, names: Sequence[str], schema: Any = None) -> None:
        """Of the output. schema: parquet's, where the input has one."""
        self._columns, self._schema = list(names), schema

    def add(self, rows: Sequence[Mapping[str, Any]], bad: Sequence[Mapping[str, Any]]) -> None:
        """The next part. bad: rows without a label, each with its number and the reason."""
        name = f"{self._n:08}"
        self._put(f"{name}.bad", "jsonl", bad)
        self._put(name, self._kind, rows)  # the last: it says that the part is whole
        self._n += 1

    def finish(self) -> Path | None:
        """Joins the parts to the output, and their bad rows to a file beside it, if there are any.

        Returns that file.
        """
        whole = [self._whole(i) for i in range(self._n)]
        bad = [self._folder / f"{i:08}.bad" for i in range(self._n)]
        beside = self._output.with_name(f"{self._output.name}.bad.jsonl")
        beside.unlink(missing_ok=True)
        has_bad = any(part.stat().st_size for part in bad)
        if has_bad:
            self._join(beside, "jsonl", bad)
        self._join(self._output, self._kind, whole)
        shutil.rmtree(self._folder)
        return beside if has_bad else None

    def _begin(self, about: Mapping[str, Any]) -> None:
        manifest = self._folder / _MANIFEST
        if not manifest.exists():
            shutil.rmtree(self._folder, ignore_errors=True)  # killed before the first word
            self._folder.mkdir(parents=True)
            write_wholly(manifest, json.dumps(about, indent=1))
            return
        before = json.loads(manifest.read_text(encoding="utf-8"))
        if before != json.loads(json.dumps(about)):
            changed = sorted(k for k in {*before, *about} if before.get(k) != about.get(k))
            raise BadTable(
                f"{self._folder} holds the parts of another run ({', '.join(changed)} differ). "
                "Say --force to begin anew, or finish that one as it began."
            )

    def _whole(self, i: int) -> Path:
        return self._folder / f"{i:08}"

    def _put(self, name: str, kind: Format, rows: Sequence[Mapping[str, Any]]) -> None:
        new = self._folder / f"{name}.new"
        schema = write(new, kind, rows, self._columns, self._schema if kind != "jsonl" else None)
        self._schema = self._schema or schema
        _settled(new)
        new.replace(self._folder / name)

    def _join(self, target: Path, kind: Format, parts: Sequence[Path]) -> None:
        new = target.with_name(f"{target.name}.new")
        with new.open("wb") as file:
            if target.suffix == ".gz":
                with gzip.open(file, "wb") as packed:
                    join(packed, kind, parts, self._columns)  # type: ignore[arg-type]
            else:
                join(file, kind, parts, self._columns)
        _settled(new)
        new.replace(target)


def _settled(path: Path) -> None:
    """Waits until it is on the disk: a power cut must not leave a whole name with half a part."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
