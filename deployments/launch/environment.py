"""What the child `serve run` finds: its directory, its environment, and the config it is given."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

from deployments.config.crosscheck import HA_PROXY, THROUGHPUT
from deployments.engines import machine
from deployments.launch import ports
from deployments.launch.ingress import ADMIN_SOCKET, Ingress
from deployments.launch.plan import Plan
from deployments.launch.processes import OWNER_VARIABLE, RUN_VARIABLE, owner_name
from deployments.model.source import find_packaged

# HAProxy's other doors, with their usual numbers: statistics, metrics, and Serve's own proxy, which
# answers where no replica does. Nobody needs to know them, so any free port will do.
_SIDE_PORTS = {
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
}

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own default here, said aloud: replicas unpickle what comes to their gRPC ports, which
    # listen on all addresses.
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_LOG_TO_STDERR": "1",  # replicas' log lines reach the child's output
    "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's announced default; its warning is noise
    # As the YAML has it; set here for Serve's own proxies, which start elsewhere.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.http.serve_edge:middlewares",
    # Micro-batches go past the object store; 30 % of the memory, Ray's default, is not needed.
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "536870912",
}


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
    env = {**_DEFAULTS, **os.environ}
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
    env |= {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / ADMIN_SOCKET),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "metrics.sock"),
    }
    if "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT" not in env:
        env |= ports.ingress_environment()
    env.setdefault("RAY_SERVE_HAPROXY_NBTHREAD", str(min(4, machine.cpu_count())))
    taken = {plan.port}
    for name, usual in _SIDE_PORTS.items():
        port = ports.first_free(int(env.get(name, usual)), taken)
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
        access, model = args.get("access") or {}, args.get("model") or {}
        for name in ("keys_file", "jwt_jwks"):
            if access.get(name) and (workdir / str(access[name])).is_file():
                # Not resolved: a link that is swapped later must be followed again.
                access[name] = str(workdir / str(access[name]))
        # Only what stands below the working directory depends on it: workers have another.
        local = workdir / str(model.get("id"))
        if (local / "config.json").is_file() and not find_packaged(model["id"]):
            model["id"] = str(local.resolve())
    return deployed
