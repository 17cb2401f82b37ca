"""Memory, open files and threads of every process that this one started, over time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from deployments.launch import processes

from .growth import slope

MIB = 2**20
ENOUGH = 20  # samples
_REPLICA = "ray::ServeReplica:classify:"
# What the command line of Python processes says of them, where they have no title of their own.
_BY_ARGUMENT = {
    "deployments.cli": "rayclassify serve",
    "ray.serve.scripts": "serve run",
    "deployments.launch.child": "serve run",
    "tests.trials.handles": "caller by handle",
    "dashboard.py": "dashboard",
    "log_monitor.py": "log monitor",
    "monitor.py": "autoscaler monitor",
    "default_worker.py": "starting worker",
}


@dataclass
class Watched:
    """One process. Times in seconds since the watch began; the other lists go with them."""

    kind: str
    pid: int
    times_s: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    uss_mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def figures(self, warm_s: float) -> dict[str, Any]:
        """What became of it, JSON-ready; slopes an hour, without the first `warm_s` of its life.

        A process with fewer than 20 samples after that has no slopes.
        """
        out: dict[str, Any] = {
            "kind": self.kind,
            "pid": self.pid,
            "from_s": round(self.times_s[0], 1),
            "to_s": round(self.times_s[-1], 1),
            "rss_mib": [round(self.rss_mib[0], 1), round(self.rss_mib[-1], 1)],
            "rss_max_mib": round(max(self.rss_mib), 1),
            "uss_mib": [round(self.uss_mib[0], 1), round(self.uss_mib[-1], 1)],
            "files": [self.files[0], self.files[-1]],
            "files_max": max(self.files),
            "threads_max": max(self.threads),
        }
        warm = int(np.searchsorted(self.times_s, self.times_s[0] + warm_s))
        hours = [at / 3600 for at in self.times_s[warm:]]
        if len(hours) >= ENOUGH:
            for name in ("rss_mib", "uss_mib", "files"):
                found = slope(hours, getattr(self, name)[warm:])
                out[f"{name}_per_h"] = [round(found.value, 2), round(found.low, 2),
                                        round(found.high, 2)]  # fmt: skip
            tenth = max(len(hours) // 10, 1)
            ends = self.rss_mib[warm:][:tenth], self.rss_mib[-tenth:]
            out["rss_grown_mib"] = round(float(np.mean(ends[1]) - np.mean(ends[0])), 1)
        return out

    def thinned(self, every_s: float) -> dict[str, list[float]]:
        """Means of so many seconds: for the file and the plot."""
        slots: dict[int, list[int]] = {}
        for number, at in enumerate(self.times_s):
            slots.setdefault(int(at // every_s), []).append(number)
        return {
            "minute": [round((slot + 0.5) * every_s / 60, 2) for slot in slots],
            "rss_mib": [round(float(np.mean([self.rss_mib[i] for i in of])), 1)
                        for of in slots.values()],
            "files": [max(self.files[i] for i in of) for of in slots.values()],
        }  # fmt: skip


class Watch:
    """All processes below this one, and this one. `sample` looks at them once."""

    def __init__(self) -> None:
        self.processes: dict[tuple[int, float], Watched] = {}
        self.together = Watched("all together", 0)
        self._started_s = time.monotonic()

    def now_s(self) -> float:
        return time.monotonic() - self._started_s

    def sample(self, at: float | None = None) -> Counter[str]:
        """How many processes of each kind there are now. A process that just ends is left out.

        at: what stands in the place of the time, as the requests so far.
        """
        now_s, kinds = self.now_s() if at is None else at, Counter[str]()
        totals = np.zeros(4)
        me = psutil.Process()
        for process in (me, *_children(me)):
            try:
                key = process.pid, process.create_time()
                kind = "this trial and its load" if process == me else kind_of(process)
                memory = process.memory_full_info()
                values = (memory.rss / MIB, memory.uss / MIB, process.num_fds(),
                          process.num_threads())  # fmt: skip
            except (psutil.Error, OSError):
                continue
            kinds[kind] += 1
            if process != me:
                totals += values
            one = self.processes.setdefault(key, Watched(kind, process.pid))
            one.kind = kind  # Ray's workers get their names late
            _note(one, now_s, *values)
        if kinds:
            rss, uss, files, threads = totals
            _note(self.together, now_s, rss, uss, int(files), int(threads))
        return kinds


def kind_of(process: psutil.Process) -> str:
    """A deployment's name for its replicas; else what the process calls itself."""
    command = process.cmdline()
    title = command[0] if command else process.name()
    if title.startswith(_REPLICA):
        return title.removeprefix(_REPLICA).split(".")[0].split(":")[0].split(" ")[0].strip()
    if title.startswith(("ray::", "ray-dashboard-")):
        return title.split(" ")[0].split(".")[0].removesuffix("-0")  # without the method it is in
    for argument in command[1:]:
        name = Path(argument).name
        if name in _BY_ARGUMENT:
            return _BY_ARGUMENT[name]
        for part in ("resource_tracker", "forkserver"):
            if f"multiprocessing.{part}" in argument:
                return part
    return process.name()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except (psutil.Error, OSError):
        return []


def _note(
    one: Watched, now_s: float, rss_mib: float, uss_mib: float, files: int, threads: int
) -> None:
    one.times_s.append(now_s)
    one.rss_mib.append(rss_mib)
    one.uss_mib.append(uss_mib)
    one.files.append(files)
    one.threads.append(threads)


def replicas_mb() -> dict[str, float]:
    """Name and pid of every replica that this process started → its memory in MB (RSS)."""
    return {
        f"{name} {process.pid}": round(process.memory_info().rss / 1e6, 1)
        for process, name in processes.replicas(_children(psutil.Process())).items()
    }


def tracebacks() -> int:
    """Tracebacks in the logs of Serve and of its replicas."""
    # A Ray that the same process started in another way has none.
    replicas = processes.replicas(_children(psutil.Process()))
    folders = {process.environ().get("RAY_TMPDIR") for process in replicas} - {None}
    return sum(
        path.read_text(errors="replace").count("Traceback (most recent call last)")
        for folder in folders
        for pattern in ("session_2*/logs/serve/**/*.log", "session_2*/logs/worker-*")
        for path in Path(str(folder)).glob(pattern)
    )
