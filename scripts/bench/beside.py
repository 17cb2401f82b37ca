"""Models through the service, side by side: one service each, all up at once, asked in turns.

A shared machine changes within minutes, so only what ran within seconds of one another compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .load import enough_s, load
from .service import Service, read_config, running_service
from .session import Plan

_WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model's directory, and the precision that it runs in; `auto` takes the fastest right one.
    Written DIR or DIR:dtype."""

    model: str
    dtype: str = "auto"

    @staticmethod
    def of(text: str) -> Candidate:
        model, _, dtype = text.partition(":")
        return Candidate(model, dtype or "auto")

    @property
    def engine(self) -> dict[str, str]:
        """As `args.engine`."""
        return {"name": "auto" if self.dtype == "auto" else "torch", "dtype": self.dtype}

    def changes(self, threads: int) -> list[str]:
        """Of the service's settings."""
        return [
            f"model.id={self.model}",
            *(f"engine.{key}={value}" for key, value in self.engine.items()),
            f"engine.num_threads={threads}",
        ]


@dataclass(slots=True)
class Rates:
    """rates: requests/s of each turn, by the number of connections. info: as GET /info says."""

    candidate: Candidate
    info: dict[str, Any]
    rates: dict[int, list[float]] = field(default_factory=dict)
    errors: int = 0

    @property
    def name(self) -> str:
        """The directory's."""
        return self.candidate.model.rstrip("/").rsplit("/", 1)[-1]

    @property
    def engine(self) -> str:
        return f"{self.info['engine']} {self.info['dtype']}"

    def rate(self, connections: int) -> float:
        """The median of the turns."""
        return median(self.rates[connections])

    def ratios(self, first: Rates, connections: int) -> list[float]:
        """Of each turn, to the first model's of the same turn."""
        pairs = zip(self.rates[connections], first.rates[connections], strict=True)
        return sorted(mine / others for mine, others in pairs)


def measure(
    candidates: Sequence[Candidate],
    texts: Sequence[str],
    connections: Iterable[int],
    turns: int,
    plan: Plan,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Rates]:
    """Rates of all of them, the first one's included. Each turn begins with another one."""
    connections = tuple(connections)
    with ExitStack() as stack:
        found: list[Rates] = []
        services: list[Service] = []
        for candidate in candidates:
            tell(f"starting {candidate.model} {candidate.dtype}")
            changes = [*candidate.changes(plan.threads), *plan.changes]
            service = stack.enter_context(running_service(changes, read_config(plan.config)))
            load(service.endpoint, texts, 16, _WARM_UP_S)
            found.append(Rates(candidate, service.info))
            services.append(service)
        for turn in range(turns):
            order = [(turn + i) % len(found) for i in range(len(found))]
            for n in connections:
                tell(f"turn {turn + 1} of {turns}, {n} connections")
                for i in order:
                    before = found[i].rates.setdefault(n, [])
                    seconds = enough_s(before[-1] if before else 20.0, plan.duration_s, 4 * n)
                    run = load(services[i].endpoint, texts, n, seconds)
                    before.append(round(run.requests_per_s, 2))
                    found[i].errors += run.errors
        return found


def markdown(found: Sequence[Rates]) -> str:
    """A table: requests/s, and in brackets how many times the first model's, with the least and
    the most of the turns."""
    connections = list(found[0].rates)
    head = ["model", "engine", *(f"{n} connections" for n in connections), "errors"]
    lines = [head, ["---"] * len(head)]
    for one in found:
        cells = []
        for n in connections:
            ratios = one.ratios(found[0], n)
            said = f" ({median(ratios):.2f} ×, {ratios[0]:.2f} to {ratios[-1]:.2f})"
            cells.append(f"{one.rate(n):,.1f}{said if one is not found[0] else ''}")
        lines.append([one.name, one.engine, *cells, str(one.errors)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
