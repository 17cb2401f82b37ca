"""A small file that others replace while we run: a mounted secret, a list of keys."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 1.0

T = TypeVar("T")


class WrongFileError(Exception):
    """The file can't be used. The message says where and why, and quotes nothing of it."""


class WatchedFile(Generic[T]):
    """The parsed content of `path`, at most CHECK_EVERY_S old.

    Kubernetes replaces a secret by swapping a symlink, so the file behind the path is compared:
    device, inode, time and size. A file that is gone or wrong changes nothing: a slip of the hand
    must not lock everybody out.

    parse: the file's bytes → what it says.

    Raises:
        WrongFileError: it is wrong from the start.
    """

    def __init__(
        self,
        path: str | Path,
        parse: Callable[[bytes], T],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(path).expanduser()
        self._parse = parse
        self._clock = clock
        self._next_check = clock() + CHECK_EVERY_S
        # Before the content: a change in between is then seen the next time.
        self._state = self._current_state()
        self._value = self._read()

    @property
    def value(self) -> T:
        """What the file says now, or said when it was last right."""
        now = self._clock()
        if now >= self._next_check:
            self._next_check = now + CHECK_EVERY_S
            state = self._current_state()
            if state != self._state:
                self._state = state
                self._read_again()
        return self._value

    def _read_again(self) -> None:
        try:
            self._value = self._read()
            logger.info("%s has changed and was read again", self._path.name)
        except WrongFileError as exc:
            logger.error("%s is refused and the old one stays: %s", self._path.name, exc)

    def _read(self) -> T:
        try:
            content = self._path.read_bytes()
        except OSError as exc:
            raise WrongFileError(
                f"{self._path} can't be read ({type(exc).__name__}). Check args.access, "
                "and that it is there on every machine that runs a Tokenizer."
            ) from None
        return self._parse(content)

    def _current_state(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - every second, on the event loop
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
