"""What would make the start fail, found before it: each finding with number, limit and cure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployments.engines import machine
from deployments.launch import ports, processes
from deployments.launch.plan import Plan
from deployments.model.source import ModelNotFound, find_model

# Measured with the demo model: 1.3 GB in all, of which Ray and Serve take 0.8 and the Classifier
# 0.4. The rest is for second replicas; larger models need more.
NEEDED_MEMORY_BYTES = 2_000_000_000
# Ray puts its object store on disk when there is less; below 75 MiB it does not start.
NEEDED_SHARED_MEMORY_BYTES = 536_870_912


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. A warning does not stop the start."""

    message: str
    fatal: bool = True


def preflight(plan: Plan) -> list[Finding]:
    """All findings; empty if everything the plan needs is there."""
    return [
        *check_leftovers(),
        *check_port(plan.host, plan.port),
        *check_memory(),
        *check_shared_memory(),
        *check_model(plan.model),
        *check_cpus(plan.num_cpus),
        *check_gpus(plan.num_gpus),
        *check_token(os.environ.get("RAY_AUTH_MODE", "token")),
    ]


def check_port(host: str, port: int) -> Iterator[Finding]:
    """The HTTP port must be free, and the address this machine's."""
    error = ports.why_not(port, host)
    if error is None:
        if not ports.claim_door(port, host):
            yield Finding(
                f"another `rayclassify serve` is about to listen on port {port}. "
                "Stop it, or set http_options.port to a free one."
            )
        return
    if isinstance(error, PermissionError):
        yield Finding(
            f"this user may not listen on port {port}. Set http_options.port to 1024 or more."
        )
        return
    if error.errno != errno.EADDRINUSE:
        yield Finding(
            f"http_options.host is {host!r}, which is no address of this machine. "
            "Set it to 127.0.0.1 for this machine alone, or to 0.0.0.0."
        )
        return
    cure = "or set http_options.port to a free one."
    process = ports.holder(port)
    if process is None:
        who = "a process this user cannot see"
        cure = f"Find it with `sudo ss -ltnp 'sport = :{port}'` and stop it, {cure}"
    elif (owner := processes.owner_of(process)) is not None:
        who = f"another `rayclassify serve` (pid {owner})"
        cure = f"Stop it with Ctrl-C or `kill -INT {owner}`, {cure}"
    else:
        who = f"{process.name()} (pid {process.pid})"
        cure = f"Stop it with `kill {process.pid}`, {cure}"
    yield Finding(f"port {port} is taken by {who}. {cure}")


def check_leftovers() -> Iterator[Finding]:
    """A launcher that was killed leaves its Ray and HAProxy running."""
    for run, members in processes.leftovers().items():
        pids = " ".join(str(process.pid) for process in members)
        yield Finding(
            f"{len(members)} processes of an earlier run ({Path(run).name}) are left over. "
            f"Stop them with `kill -9 {pids}`."
        )


def check_memory(needed: int = NEEDED_MEMORY_BYTES) -> Iterator[Finding]:
    """Ray, Serve and one copy of the model must fit."""
    available = machine.available_memory_bytes()
    if available < needed:
        yield Finding(
            f"{_gb(available)} of memory are available; {_gb(needed)} are needed. "
            "Close other programs or raise the container's memory limit."
        )


def check_shared_memory(needed: int = NEEDED_SHARED_MEMORY_BYTES) -> Iterator[Finding]:
    """Ray keeps objects in /dev/shm, and takes slow disk where that is small."""
    free = machine.shared_memory_bytes()
    if free is not None and free < needed:
        yield Finding(
            f"{machine.SHARED_MEMORY} has {_gb(free)} free; Ray wants {_gb(needed)} and will use "
            "slower disk. In a container, start it with --shm-size=1g.",
            fatal=False,
        )


def check_model(model_id: str | None) -> Iterator[Finding]:
    """A directory must exist; a hub id is only known once it is fetched."""
    if model_id is None:
        return
    try:
        found = find_model(model_id)
    except ModelNotFound as exc:
        yield Finding(str(exc))
        return
    offline = os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "TRUE", "YES", "ON"}
    if found == model_id and not Path(found).is_dir() and offline:
        yield Finding(
            f"model {model_id!r} is no directory here, and HF_HUB_OFFLINE is set: it loads only "
            "from the local cache. Unset HF_HUB_OFFLINE or set args.model.id to a directory.",
            fatal=False,
        )


def check_cpus(asked: float) -> Iterator[Finding]:
    """One of each deployment must fit, or Serve waits for ever."""
    have = machine.cpu_count()
    if asked > have:
        yield Finding(
            f"the deployments ask for {asked:g} CPUs; this machine has {have}. "
            "Lower num_cpus under ray_actor_options, or the initial replicas."
        )


def check_gpus(asked: float) -> Iterator[Finding]:
    """Likewise for GPUs."""
    have = machine.gpu_count() if asked > 0 else None
    if have is not None and asked > have:
        yield Finding(
            f"the deployments ask for {asked:g} GPUs; this machine shows {have}. "
            "Check `nvidia-smi`, or use a config without num_gpus."
        )


def check_token(mode: str) -> Iterator[Finding]:
    """Ray's ports listen on all addresses and run what they are sent."""
    if mode.lower() != "token":
        yield Finding(
            f"RAY_AUTH_MODE is {mode!r}: whoever reaches a port of Ray here can run code on this "
            "machine. Unset it, or set it to token.",
            fatal=False,
        )


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
