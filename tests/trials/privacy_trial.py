"""One service under the privacy trial: what was sent to it, and the search for it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench.child import Child

from . import privacy_faults as faulty
from .canary import Canaries
from .handle_cases import HandleCase
from .places import Run, Syslog, files_below
from .privacy_cases import Case, Http

PATIENCE_S = 90.0
_CONTROL_FILE = "control-of-the-search"


@dataclass
class Trial:
    """One service under trial, what was sent to it and what was found."""

    canaries: Canaries
    http: Http
    run: Run
    syslog: Syslog
    audit: Path
    names: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    controls: set[int] = field(default_factory=set)
    shown_in: dict[int, str] = field(default_factory=dict)
    searched: Counter[str] = field(default_factory=Counter)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls_found: set[str] = field(default_factory=set)

    def number(self, name: str, shown_in: str = "") -> int:
        """The number of a new case."""
        number = len(self.names)
        self.names.append(name)
        if shown_in:
            self.shown_in[number] = shown_in
        return number

    def send(self, cases: Iterable[Case]) -> None:
        for case in cases:
            self.settle()
            outcome = case.send(self.number(case.name, case.shown_in))
            if outcome not in case.expected:
                self.missed.append(f"{case.name}: {outcome}")

    def call(self, caller: Child, cases: Sequence[HandleCase]) -> None:
        for case in cases:
            self.settle()
            number = self.number(f"handle, {case.name}", case.shown_in)
            answer = caller.ask(**case.question(number))
            if answer.get("raised", "answer") not in case.expected:
                self.missed.append(f"handle, {case.name}: {answer.get('raised', 'answer')}")

    def settle(self) -> None:
        """Waits until the service answers: what was done to it before may still block it."""
        wait_for(lambda: self.http.json({"text": "好"}) == 200, "an answer")

    def search(self) -> None:
        """Looks into every place, and keeps what was found there that is no control."""
        self.searched.clear()
        of_audit = files_below(self.audit, "audit log")
        for place in (*self.run.places(), self.syslog.place(), *of_audit):
            self.searched[place.kind] += 1
            for form, excerpt in self.canaries.forms_in(place.data).items():
                where = f"{place.kind} {place.name}"
                numbers = self._numbers(place.data)
                known = {n for n, shown_in in self.shown_in.items() if shown_in in where}
                if numbers & self.controls:
                    self.controls_found.add(f"{place.kind}: {form}")
                if numbers and numbers <= self.controls | known:
                    continue
                self.found[f"{where}, {form}"] = {
                    "cases": [self.names[n] for n in sorted(numbers - self.controls - known)],
                    "excerpt": excerpt,
                }

    def _numbers(self, data: bytes) -> set[int]:
        latin = self.canaries.latin.encode()
        return {int(n) for n in re.findall(latin + rb"(\d{3})", data, re.IGNORECASE)}

    def control(self) -> None:
        """Canaries that must be found: logged, made a metric's tag, written into a file."""
        for name, fault in (("log", faulty.LOG), ("metric", faulty.COUNT)):
            self.controls.add(number := self.number(f"control, {name}"))
            self.http.json({"text": self.canaries.text(number, fault)})
        self.controls.add(number := self.number("control, file"))
        (session,) = self.run.dir.glob("ray/session_2*")
        (session / _CONTROL_FILE).write_bytes(self.canaries.in_all_forms(number))

    def control_is_seen(self) -> bool:
        """Whether what takes the longest has come to where it is shown: metrics."""
        self.controls_found.clear()
        self.search()
        return "metrics: plain" in self.controls_found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError if `what` does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.3)
