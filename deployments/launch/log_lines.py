"""Serve's log files as lines: of all its processes on one machine, in the order of time."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_TEXT = re.compile(rf"([A-Z]+) ({_TIME}) (\S+) (\S+) (?:(\S+) )?-- (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """time: as Serve writes it, in this machine's zone, so that the text sorts. source: a
    deployment (Tokenizer), or a part of Serve (controller, proxy). process: replica or pid."""

    time: str
    level: str
    source: str
    process: str
    request_id: str
    message: str

    def __str__(self) -> str:
        of = f" {self.request_id}" if self.request_id else ""
        return f"{self.time} {self.level:<7} {self.source} {self.process}{of}: {self.message}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines. Empty fields want all."""

    deployment: str = ""
    level: str = ""
    request_id: str = ""

    def __call__(self, line: Line) -> bool:
        if self.deployment and self.deployment.lower() != line.source.lower():
            return False
        if self.level and _rank(line.level) < _rank(self.level):
            return False
        return not self.request_id or self.request_id in (line.request_id, *line.message.split())


class LogDirectory:
    """The `serve/` folder of a Ray session's logs, or of a kept run. `read` again for what came."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._read_to: dict[int, int] = {}  # inode → offset: a file that is rotated keeps its inode
        self._last: dict[int, Line] = {}

    def read(self) -> Iterator[Line]:
        """What was not read before, in the order of time; memory does not grow with the files."""
        # Serve's rotated files are .log.1, .log.2; the highest is the oldest.
        paths = sorted(self.directory.glob("*.log*"), reverse=True)
        return heapq.merge(*map(self._lines, paths), key=lambda line: line.time)

    def _lines(self, path: Path) -> Iterator[Line]:
        try:
            file = path.open("rb")
        except OSError:
            return  # rotated away just now
        with file:
            inode = path.stat().st_ino
            file.seek(self._read_to.get(inode, 0))
            line = None
            for raw in file:
                if not raw.endswith(b"\n"):
                    break  # the rest is still to come
                self._read_to[inode] = self._read_to.get(inode, 0) + len(raw)
                text = raw.decode("utf-8", "replace").rstrip("\n")
                found = parsed(text)
                if found is None and line is not None:
                    # The second line of a message, or a traceback.
                    line = replace(line, message=f"{line.message}\n{text}")
                    continue
                if line is not None:
                    yield line
                line = found or self._after(inode, text)
                if line is not None:
                    self._last[inode] = line
            if line is not None:
                yield line

    def _after(self, inode: int, text: str) -> Line | None:
        """The rest of a message of which the beginning was read before."""
        last = self._last.get(inode)
        return None if last is None else replace(last, message=text)


def parsed(text: str) -> Line | None:
    """A line in one of Serve's two encodings; None where it is the rest of one."""
    if text.startswith("{"):
        try:
            return _of_json(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    level, time, component, process, request_id, message = found.groups()
    return Line(time, level, _source(component), process, request_id or "", message)


def _of_json(told: dict[str, Any]) -> Line:
    component = told.get("deployment") or told.get("component_name") or ""
    process = told.get("replica") or told.get("component_id") or ""
    return Line(
        str(told["asctime"]), str(told["levelname"]), _source(str(component)), str(process),
        str(told.get("request_id") or ""), str(told["message"]),
    )  # fmt: skip


def _source(component: str) -> str:
    """`classify_Tokenizer`, application and deployment, is Tokenizer; `controller` is itself."""
    return component.rpartition("_")[2] if component[:1].islower() else component


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)
