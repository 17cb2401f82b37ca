"""This checkout beside another commit: both services up at once, asked in turns.

A shared machine changes within minutes, by more than most changes bring: only what ran within
seconds of one another is compared.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from rich.table import Table

from .kinds import LISTS, Kind
from .load import load
from .machine import ROOT
from .service import read_config, running_service
from .session import Session
from .workload import make_workload

SLICE_S, TURNS, QUICK_TURNS = 4.0, 6, 2
WARM_UP_S = 3
FEW = 20  # answers in a slice say too little of its rate
MODELS = {
    "no model": ("engine.name=none",),
    "demo model": ("engine.name=torch", "engine.dtype=float32"),
}


KINDS = (Kind(1, 1), Kind(1, 16), Kind(1, 64), *LISTS)


@contextmanager
def checkout(rev: str) -> Iterator[Path]:
    """A directory with the files of that commit.

    Raises:
        subprocess.CalledProcessError: there is no such commit.
    """

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(ROOT), "worktree", *words], check=True)

    with tempfile.TemporaryDirectory(prefix="against") as folder:
        git("add", "--quiet", "--detach", f"{folder}/tree", rev)
        try:
            yield Path(folder, "tree")
        finally:
            git("remove", "--force", f"{folder}/tree")


def compare(session: Session, rev: str, quick: bool) -> list[Table]:
    """A table for each model: requests a second then and now, and their ratio in each turn."""
    return [_compare(session, rev, name, QUICK_TURNS if quick else TURNS) for name in MODELS]


def _compare(session: Session, rev: str, name: str, turns: int) -> Table:
    texts = make_workload("models/demo").texts
    seen: dict[Kind, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    wrong: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    session.console.print(f"against {rev}: {name}")
    with ExitStack() as stack:
        roots = (stack.enter_context(checkout(rev)), ROOT)
        services = [
            stack.enter_context(
                running_service(MODELS[name], read_config(root / "serve_config.yaml"), root=root)
            ).endpoint
            for root in roots
        ]

        def rate(side: int, kind: Kind, seconds: float) -> float:
            endpoint = kind.endpoint(services[side])
            run = load(endpoint, kind.requests(texts), kind.connections, seconds)
            wrong[kind] += run.errors
            return run.requests_per_s

        for kind in KINDS:
            for side in (0, 1):
                rate(side, kind, WARM_UP_S)
        wrong = dict.fromkeys(KINDS, 0)
        for turn in range(turns):
            for kind in KINDS:
                first = turn % 2
                got = {side: rate(side, kind, SLICE_S) for side in (first, 1 - first)}
                seen[kind].append((got[0], got[1]))
    table = Table(name, f"{rev}, requests/s", "now", "now / then", "lowest to highest", "errors")
    for kind, pairs in seen.items():
        then_s, now_s = (median(side) for side in zip(*pairs, strict=True))
        if min(then_s, now_s) * SLICE_S < FEW:
            table.add_row(str(kind), f"{then_s:,.1f}", f"{now_s:,.1f}", "too few answers", "", "")
            continue
        ratios = [now / then for then, now in pairs if then]
        table.add_row(
            str(kind),
            f"{then_s:,.0f}",
            f"{now_s:,.0f}",
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            str(wrong[kind]),
        )
    return table
