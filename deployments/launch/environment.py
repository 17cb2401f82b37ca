"""What the child `serve run` finds: its directory, its environment, and the config it is given."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

from deployments.config.ray_inside import (
    DEFAULTS,
    FIRST_INGRESS_PORT,
    HA_PROXY,
    HAPROXY_THREADS,
    SIDE_PORTS,
    THROUGHPUT,
    haproxy_files,
)
from deployments.engines import machine
from deployments.launch import ports
from deployments.launch.ingress import Ingress
from deployments.launch.plan import Plan
from deployments.launch.processes import OWNER_VARIABLE, RUN_VARIABLE, owner_name
from deployments.model.source import find_packaged
from deployments.settings import PARTS


def new_run_dir() -> Path:
    """A private directory for a run: Ray's session, HAProxy's sockets and config, the log."""
    # Short on purpose: a Unix socket's path has 107 characters at most (HAProxy: 97), and Ray and
    # Serve append up to 76. macOS's own temporary directory is too long for that.
    return Path(tempfile.mkdtemp(prefix="rayclassify-", dir="/tmp"))


def cluster_address() -> str | None:
    """The Ray cluster the user names in RAY_ADDRESS; None to start one here."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in {"", "local"} else address


def host_of(address: str) -> str:
    """The host in RAY_ADDRESS: `host:port`, `ray://host:port`, or `auto`, which is here."""
    if address == "auto":
        return "127.0.0.1"
    return address.rpartition("://")[2].rpartition(":")[0].strip("[]") or "127.0.0.1"


def child_environment(run_dir: Path, plan: Plan, ingress: Ingress) -> dict[str, str]:
    """The environment of a Ray started here. What the user has set wins, but for the ingress."""
    env = {**DEFAULTS, **os.environ}
    env.pop("RAY_ADDRESS", None)
    env |= {
        RUN_VARIABLE: str(run_dir),
        OWNER_VARIABLE: owner_name(),
        # A Ray of our own: one that somebody else started here is neither joined nor stopped.
        "RAY_TMPDIR": str(run_dir),
        HA_PROXY: "1" if ingress.haproxy else "0",
        # The config sets it, for Serve's processes only: elsewhere it breaks handles (docs/log.md).
        THROUGHPUT: "0",
    }
    if not ingress.haproxy:
        return env
    env |= haproxy_files(run_dir)
    if FIRST_INGRESS_PORT not in env:
        env |= ports.ingress_environment()
    env.setdefault(HAPROXY_THREADS, str(min(4, machine.cpu_count())))
    # Claimed: who starts at the same moment finds the same ports free.
    taken = {plan.port, plan.grpc_port or plan.port}
    for name in SIDE_PORTS:
        port = ports.first_free(int(env.get(name) or ports.next_port()), taken)
        taken.add(port)
        env[name] = str(port)
    return env


def child_config(config: dict[str, Any], ingress: Ingress, workdir: Path) -> dict[str, Any]:
    """The config as deployed: the ingress that runs here, and paths that any worker can open."""
    deployed = copy.deepcopy(config)
    runtime_env = (deployed.get("controller_options") or {}).get("runtime_env") or {}
    if not ingress.haproxy and runtime_env.get("env_vars"):
        runtime_env["env_vars"] |= {HA_PROXY: "0", THROUGHPUT: "0"}
    for app in deployed.get("applications") or []:
        args = app.get("args") or {}
        access = args.get("access") or {}
        for name in ("keys_file", "jwt_jwks"):
            if access.get(name) and (workdir / str(access[name])).is_file():
                # Not resolved: a link that is swapped later must be followed again.
                access[name] = str(workdir / str(access[name]))
        # Only what stands below the working directory depends on it: workers have another.
        for about in (args, *(args.get(part) or {} for part in PARTS)):
            model = about.get("model") or {}
            local = workdir / str(model.get("id"))
            if (local / "config.json").is_file() and not find_packaged(model["id"]):
                model["id"] = str(local.resolve())
    return deployed
