"""The processes of one run: found by the run's name in their environment, stopped by pid.

Ray's daemons are handed to init when their parent ends, so a process tree would miss them; the
environment stays. `ray stop` and `pkill` would also end what belongs to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

RUN_VARIABLE = "RAYCLASSIFY_RUN"
OWNER_VARIABLE = "RAYCLASSIFY_RUN_OWNER"


def with_environment() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Every process whose environment this user may read."""
    for process in psutil.process_iter():
        try:
            yield process, process.environ()
        except (psutil.Error, OSError):
            continue


def of_run(run_dir: Path) -> list[psutil.Process]:
    """All living processes of a run."""
    name = str(run_dir)
    return [
        process
        for process, env in with_environment()
        if env.get(RUN_VARIABLE) == name and not _is_dead(process)
    ]


def leftovers() -> dict[str, list[psutil.Process]]:
    """Run → its processes, for runs whose launcher has ended without stopping them."""
    runs: dict[str, list[psutil.Process]] = {}
    for process, env in with_environment():
        run, owner = env.get(RUN_VARIABLE), env.get(OWNER_VARIABLE, "")
        if run and not _owner_lives(owner) and not _is_dead(process):
            runs.setdefault(run, []).append(process)
    return runs


def owner_of(process: psutil.Process) -> int | None:
    """The pid of the `rayclassify serve` that started a process, if one did and still lives."""
    try:
        owner = process.environ().get(OWNER_VARIABLE, "")
    except (psutil.Error, OSError):
        return None
    return int(owner.split("@")[0]) if _owner_lives(owner) else None


def owner_name() -> str:
    """This process, so named that a later process with the same pid is not taken for it."""
    me = psutil.Process()
    return f"{me.pid}@{me.create_time():.2f}"


def end(processes: Iterable[psutil.Process], patience_s: float = 5.0) -> list[psutil.Process]:
    """Terminate, then kill. Returns what even that did not end."""
    living = list(processes)
    for signal_all in (psutil.Process.terminate, psutil.Process.kill):
        for process in living:
            try:
                signal_all(process)
            except psutil.Error:
                continue
        _, living = psutil.wait_procs(living, timeout=patience_s)
        living = [process for process in living if not _is_dead(process)]
    return living


def _owner_lives(owner: str) -> bool:
    pid, _, created = owner.partition("@")
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) < 1.0
    except (psutil.Error, ValueError):
        return False


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
