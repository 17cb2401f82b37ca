"""What would make the start fail, found before it: each finding with number, limit and cure.

In about a second, without torch and without starting Ray.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployments.config.keys import Problem, join
from deployments.engines import machine
from deployments.launch import ports, processes
from deployments.launch.environment import cluster_address
from deployments.launch.kept_logs import RUN_BYTES, RUN_DIRS
from deployments.launch.plan import Plan, our_settings, read_plan
from deployments.model import files as model_files
from deployments.model.deployed import refuse_other_labels
from deployments.model.source import ModelNotFound
from deployments.settings import PARTS

# Measured with the demo model: 1.3 GB in all, of which Ray and Serve take 0.8 and the Classifier
# 0.4. The rest is for second replicas; larger models need more.
NEEDED_MEMORY_BYTES = 2_000_000_000
# Ray puts its object store on disk when there is less; below 75 MiB it does not start.
NEEDED_SHARED_MEMORY_BYTES = 536_870_912


def preflight(plan: Plan, config: dict[str, Any], metrics_port: int | None = None) -> list[Problem]:
    """All that `rayclassify serve` looks at; empty if everything that it needs is there.

    metrics_port: where somebody named one.
    """
    return [
        *check_leftovers(),
        *check_port(plan.host, plan.port),
        *(check_port(plan.host, plan.grpc_port, "grpc_options.port") if plan.grpc_port else ()),
        *(check_port("", metrics_port, "--metrics-port") if metrics_port else ()),
        *check_memory(),
        *check_shared_memory(),
        *check_disk(),
        *check_files(config),
        *check_cpus(plan.num_cpus),
        *check_gpus(plan.num_gpus),
        *check_token(os.environ.get("RAY_AUTH_MODE", "token")),
    ]


def check_machine(config: dict[str, Any]) -> list[Problem]:
    """What `rayclassify check` looks at: what does not change from one minute to the next."""
    plan = read_plan(config)
    if cluster_address() is not None or any(check_gpus(plan.num_gpus)):
        return check_files(config)  # it is for other machines than this one
    return [*check_files(config), *check_cpus(plan.num_cpus)]


def check_files(config: dict[str, Any]) -> list[Problem]:
    """Files that a config names and that are missing or wrong."""
    found = list(check_models(config))
    for settings, path in our_settings(config):
        access, audit = settings.access, settings.audit
        for key, name, cure in (
            ("access.keys_file", access.keys_file, "make it with `rayclassify keys new`"),
            ("access.jwt_jwks", access.jwt_jwks, "write the JWKS there, or set an https URL"),
            ("audit.secret_file", audit.secret_file, "make it with `openssl rand -hex 32`"),
        ):
            if name is not None and "://" not in name and (problem := _unreadable(Path(name))):
                message = f"{name!r} {problem}; {cure}, or correct the path"
                found.append(Problem(join(path, key), message))
    return found


def check_models(config: dict[str, Any]) -> Iterator[Problem]:
    """Faults of the models' files; a hub id is only known once it is fetched."""
    for settings, path in our_settings(config):
        models = {"": settings, **{f"{p}.": one for p in PARTS if (one := settings.of(p))}}
        found = False
        for place, own in models.items():
            for fault in model_files.faults(own.model) if own.engine.name != "none" else ():
                key = "model.revision" if fault.startswith("args.model.revision") else "model.id"
                found = True
                yield Problem(join(path, place + key), fault)
        try:
            if not found:
                refuse_other_labels(settings)
        except ModelNotFound as exc:
            yield Problem(path, str(exc))


def _unreadable(path: Path) -> str | None:
    if not path.is_file():
        return "is no file on this machine"
    return None if os.access(path, os.R_OK) else "can't be read by this user"


def check_port(host: str, port: int, setting: str = "http_options.port") -> Iterator[Problem]:
    """The port of this `setting` must be free, and the address this machine's."""
    other_port = f"or set {setting} to a free one."
    error = ports.why_not(port, host)
    if error is None and not ports.claim_door(port, host):
        who = "another `rayclassify serve`"
        yield Problem("", f"{who} is about to listen on port {port}. Stop it, {other_port}")
    if error is not None and error.errno != errno.EADDRINUSE:
        yield Problem(
            setting.rpartition(".")[0],
            f"host {host!r}, port {port} can't be listened on here ({error.strerror}). Set host to "
            "127.0.0.1 for this machine alone, or to 0.0.0.0, and port to 1024 or more.",
        )
    if error is None or error.errno != errno.EADDRINUSE:
        return
    process = ports.holder(port)
    if process is None:
        who = "a process this user cannot see"
        cure = f"Find it with `sudo ss -ltnp 'sport = :{port}'` and stop it"
    elif (owner := processes.owner_of(process)) is not None:
        who = f"another `rayclassify serve` (pid {owner})"
        cure = f"Stop it with Ctrl-C or `kill -INT {owner}`"
    else:
        who = f"{process.name()} (pid {process.pid})"
        cure = f"Stop it with `kill {process.pid}`"
    yield Problem("", f"port {port} is taken by {who}. {cure}, {other_port}")


def check_leftovers() -> Iterator[Problem]:
    """A launcher that was killed leaves its Ray and HAProxy running."""
    for run, members in processes.leftovers().items():
        pids = " ".join(str(process.pid) for process in members)
        yield Problem(
            "",
            f"{len(members)} processes of an earlier run ({Path(run).name}) are left over. "
            f"Stop them with `kill -9 {pids}`.",
        )


def check_memory(needed: int = NEEDED_MEMORY_BYTES) -> Iterator[Problem]:
    """Ray, Serve and one copy of the model must fit."""
    available = machine.available_memory_bytes()
    if available < needed:
        yield Problem(
            "",
            f"{_gb(available)} of memory are available; {_gb(needed)} are needed. "
            "Close other programs or raise the container's memory limit.",
        )


def check_shared_memory(needed: int = NEEDED_SHARED_MEMORY_BYTES) -> Iterator[Problem]:
    """Ray keeps objects in /dev/shm, and takes slow disk where that is small."""
    free = machine.shared_memory_bytes()
    if free is not None and free < needed:
        yield Problem(
            "",
            f"{machine.SHARED_MEMORY} has {_gb(free)} free; Ray wants {_gb(needed)} and will use "
            "slower disk. In a container, start it with --shm-size=1g.",
            fatal=False,
        )


def check_disk(needed: int = RUN_BYTES) -> Iterator[Problem]:
    """A run's sockets and logs: 4 MB when it is ready, and what is kept of a long one."""
    free = shutil.disk_usage(RUN_DIRS).free
    if free < needed:
        yield Problem(
            "",
            f"{RUN_DIRS} has {free / 1e6:.0f} MB free; a run's logs take up to {needed / 1e6:.0f} "
            "MB there. Remove what is old, `rayclassify-*` of ended runs for one.",
        )


def check_cpus(asked: float) -> Iterator[Problem]:
    """One of each deployment must fit, or Serve waits for ever."""
    cure = "Lower num_cpus under ray_actor_options, or the initial replicas."
    yield from _check_count(asked, machine.cpu_count(), "CPUs", cure)


def check_gpus(asked: float) -> Iterator[Problem]:
    """Likewise for GPUs."""
    have = machine.gpu_count() if asked > 0 else None
    cure = "Check `nvidia-smi`, or use a config without num_gpus."
    yield from _check_count(asked, have, "GPUs", cure)


def _check_count(asked: float, have: int | None, what: str, cure: str) -> Iterator[Problem]:
    if have is not None and asked > have:
        message = f"the deployments ask for {asked:g} {what}; this machine has {have}. {cure}"
        yield Problem("applications[0].deployments", message)


def check_token(mode: str) -> Iterator[Problem]:
    """Ray's ports listen on all addresses and run what they are sent."""
    if mode.lower() != "token":
        yield Problem(
            "",
            f"RAY_AUTH_MODE is {mode!r}: whoever reaches a port of Ray here can run code on this "
            "machine. Unset it, or set it to token.",
            fatal=False,
        )


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
