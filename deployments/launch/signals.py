"""Ctrl-C and its kin as events, so that stopping is a step of the programme and not an accident."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """`asked` after the first signal, `hurried` after the second. A context manager."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.hurried = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        # A handler also undoes "ignore", which background jobs inherit from some shells and would
        # hand on to the child, which then could not be interrupted.
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked.is_set():
            self.hurried.set()
        self.asked.set()
