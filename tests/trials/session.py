"""What every mode of the trials needs: promises, and where its findings go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from scripts.bench.store import Run


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise and what became of it.

    how: what was done to break it; cases: how often, or on how many; result: the figures.
    """

    promise: str
    how: str
    cases: int
    result: str
    kept: bool


@dataclass
class Part:
    """One mode's part of the file. `figures`: what its findings were read from, JSON-ready."""

    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, promise: str, how: str, cases: int, result: str, kept: bool) -> None:
        """Adds a finding."""
        self.findings.append(Finding(promise, how, cases, result, kept))


@dataclass
class Session(Run):
    """One run. quick: seconds where it would be minutes, hundreds where it would be thousands.

    minutes: how long the soak lasts.
    """

    quick: bool = False
    minutes: float = 60.0

    @contextmanager
    def mode(self, name: str, steps: int) -> Iterator[Part]:
        """The mode's part of the file, to be filled. Complete if nothing interrupts."""
        part = Part()
        with self.part(name, steps, {"quick": self.quick}) as kept:
            # The same dict, so that what there is gets saved on the way.
            kept |= {"findings": [], "figures": part.figures}
            try:
                yield part
            finally:
                kept["findings"] = [asdict(finding) for finding in part.findings]
                kept["figures"] = part.figures

    @contextmanager
    def trying(self, part: Part, promise: str, how: str) -> Iterator[None]:
        """One attack. What goes wrong with it is a promise not kept, and the next one is tried."""
        self.step(how)
        try:
            yield
        except Exception as exc:
            said = f"not tried to the end: {type(exc).__name__}: {exc}"[:300]
            part.add(promise, how, 0, said, kept=False)
