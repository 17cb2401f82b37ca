"""The processes of one run: found by the run's name in their environment, or by the session that
they share with such a process; stopped by pid.

Ray's daemons are handed to init when their parent ends, so a process tree would miss them; the
environment stays, but for Ray's agents, which write their titles over it: the session stays to all.
`ray stop` and `pkill` would also end what belongs to others.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from deployments.config.ray_inside import REPLICA_TITLE

RUN_VARIABLE = "RAYCLASSIFY_RUN"
OWNER_VARIABLE = "RAYCLASSIFY_RUN_OWNER"
_TICK_S = 0.05


def of_run(run_dir: Path, session: int | None = None) -> list[psutil.Process]:
    """All living processes of a run. session: its id, known to whoever started the run."""
    named = [process for process, run, _ in _named() if run == str(run_dir)]
    return _with_their_sessions(named, {session})


def leftovers() -> dict[str, list[psutil.Process]]:
    """Run → its processes, for runs whose launcher has ended without stopping them."""
    runs: dict[str, list[psutil.Process]] = {}
    for process, run, owner in _named():
        if run and _living_owner(owner) is None and not _is_dead(process):
            runs.setdefault(run, []).append(process)
    return {run: _with_their_sessions(named, {None}) for run, named in runs.items()}


def _named() -> Iterator[tuple[psutil.Process, str, str]]:
    """Every process whose environment this user may read, its run and its owner, if it has any."""
    for process in psutil.process_iter():
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            continue
        yield process, env.get(RUN_VARIABLE, ""), env.get(OWNER_VARIABLE, "")


def replicas(members: Iterable[psutil.Process]) -> dict[psutil.Process, str]:
    """Of some processes Serve's replicas, each with the name of its deployment."""
    found = {}
    for process in members:
        try:
            title = process.cmdline()[0]
        except (psutil.Error, OSError, IndexError):
            continue
        if title.startswith(REPLICA_TITLE):
            found[process] = title.split(":")[4].partition(".")[0]
    return found


def owner_of(process: psutil.Process) -> int | None:
    """The pid of the `rayclassify serve` that started a process, if one did and still lives."""
    try:
        return _living_owner(process.environ().get(OWNER_VARIABLE, ""))
    except (psutil.Error, OSError):
        return None


def has_ended(owner: str, run_dir: Path) -> bool:
    """Whether neither the launcher of a run lives nor any process of it. owner: its name."""
    return _living_owner(owner) is None and not of_run(run_dir)


def owner_name() -> str:
    """This process, so named that a later process with the same pid is not taken for it."""
    me = psutil.Process()
    return f"{me.pid}@{me.create_time():.2f}"


def end(processes: Iterable[psutil.Process], patience_s: float = 5.0) -> list[psutil.Process]:
    """Terminate, then kill. Returns what even that did not end."""
    living = list(processes)
    for signal_all in (psutil.Process.terminate, psutil.Process.kill):
        for process in living:
            with contextlib.suppress(psutil.Error):
                signal_all(process)
        living = wait(living, patience_s)
    return living


def wait(processes: Iterable[psutil.Process], patience_s: float) -> list[psutil.Process]:
    """Waits for processes to end; returns those that live on.

    A zombie has ended: nobody may be there to reap what was handed to a container's init.
    """
    deadline = time.monotonic() + patience_s
    living = list(processes)
    while living := [process for process in living if not _is_dead(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(_TICK_S)
    return living


def _with_their_sessions(
    named: list[psutil.Process], sessions: set[int | None]
) -> list[psutil.Process]:
    """These, and whoever is in a session with one of them; but never with this process."""
    found = {process.pid: process for process in named}
    theirs = (sessions | {_session(pid) for pid in found}) - {None, _session(0)}
    found |= {other.pid: other for other in psutil.process_iter() if _session(other.pid) in theirs}
    return [process for process in found.values() if not _is_dead(process)]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _living_owner(owner: str) -> int | None:
    """Its pid; None where it has ended. owner: as `owner_name` gave it."""
    pid, _, created = owner.partition("@")
    try:
        age_s = abs(psutil.Process(int(pid)).create_time() - float(created))
    except (psutil.Error, ValueError):
        return None
    return int(pid) if age_s < 1.0 else None


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
