"""Where the cluster is whose applications are meant, and the token it wants."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil

from deployments.config.ray_inside import DASHBOARD_PORT_RETRIES, DASHBOARD_PROCESS
from deployments.launch.processes import OWNER_VARIABLE, RUN_VARIABLE, owner_of
from deployments.launch.token_file import read_token

DASHBOARD_PORT = 8265
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_DASHBOARD_ADDRESS", "RAY_ADDRESS")
_HEAD_GROUP = "headgroup"


class NoCluster(Exception):
    """There is none, or several. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """url: of Ray's dashboard; how: how it was found, the end of a sentence.

    log_dir: of the node that it was found on; empty where that is another machine.
    """

    url: str
    how: str
    token: str = field(default="", repr=False)
    log_dir: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine, and so sees the same files."""
        host = urlsplit(self.url).hostname or ""
        try:
            addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
        except OSError:
            return False
        mine = {a.address for all_of in psutil.net_if_addrs().values() for a in all_of}
        return bool(addresses & (mine | {"127.0.0.1", "::1"}))


@dataclass(frozen=True, slots=True)
class LocalRay:
    """A Ray whose dashboard runs on this machine. owner: pid of its `rayclassify serve`."""

    url: str
    gcs_address: str
    owner: int | None
    environment: Mapping[str, str] = field(repr=False)
    log_dir: str = ""

    def cluster(self) -> Cluster:
        how = "Ray on this machine"
        if self.owner is not None:
            how = f"`rayclassify serve` on this machine, pid {self.owner}"
        # Its own variables, where this shell has none: they are what it was started with.
        token = read_token(os.environ) or read_token(self.environment)
        return Cluster(self.url, how, token, self.log_dir)


def find_cluster(named: str | None = None) -> Cluster:
    """The cluster that is named, or that Ray's variables name, or the one on this machine.

    Raises:
        NoCluster: none runs here, or several do.
    """
    local = list(local_rays())
    for how, address in (
        ("--address", named),
        *((name, os.environ.get(name)) for name in _VARIABLES),
    ):
        if address and address not in {"auto", "local"}:
            return _at(address, how, local)
    if not local:
        raise NoCluster(
            "no Ray runs on this machine. Start the service with `rayclassify serve`, or name the "
            "cluster: --address http://HEAD:8265, or RAY_API_SERVER_ADDRESS."
        )
    ours = [ray for ray in local if ray.owner is not None]
    if len(local) > 1 and len(ours) != 1:
        listed = "; ".join(f"{ray.url} ({ray.cluster().how})" for ray in local)
        raise NoCluster(f"several run here: {listed}. Name one with --address.")
    return (ours if len(ours) == 1 else local)[0].cluster()


def _at(address: str, how: str, local: list[LocalRay]) -> Cluster:
    for ray in local:
        if address.rstrip("/") in {ray.url, ray.gcs_address}:
            return ray.cluster()
    return Cluster(as_url(address), how, read_token(os.environ))


def as_url(address: str) -> str:
    """The dashboard's URL. Of the addresses of Ray itself (`host:6379`, `ray://host:10001`) only
    the host tells where the dashboard is; the port is then Ray's default."""
    if address.startswith(("http://", "https://")):
        return address.rstrip("/")
    host = urlsplit(address if "://" in address else f"ray://{address}").hostname or address
    return f"http://[{host}]:{DASHBOARD_PORT}" if ":" in host else f"http://{host}:{DASHBOARD_PORT}"


def local_rays() -> Iterator[LocalRay]:
    """Every Ray whose dashboard this user may look at."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if not any(part.endswith(DASHBOARD_PROCESS) for part in command[:4]):
                continue
            listening = {
                (connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
            environment = process.environ()
        except (psutil.Error, OSError):
            continue
        url = dashboard_url(command, listening)
        if url is not None:
            options = _options(command)
            gcs_address, log_dir = options.get("--gcs-address", ""), options.get("--log-dir", "")
            ours = RUN_VARIABLE in environment and OWNER_VARIABLE in environment
            owner = owner_of(process) if ours else None
            yield LocalRay(url, gcs_address, owner, environment, log_dir)


def dashboard_url(command: list[str], listening: set[tuple[str, int]]) -> str | None:
    """Where a dashboard with this command line listens: it takes the next port where its own is
    taken, and has others for metrics. None: it does not listen yet."""
    options = _options(command)
    host = options.get("--host", "127.0.0.1")
    first = int(options.get("--port") or DASHBOARD_PORT)
    ports = [port for _, port in listening if first <= port <= first + DASHBOARD_PORT_RETRIES]
    if not ports:
        return None
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{shown}:{min(ports)}"


def _options(command: list[str]) -> dict[str, str]:
    pairs = (part.partition("=") for part in command if part.startswith("--"))
    return {name: value for name, _, value in pairs}


def managed_by_kuberay(nodes: list[dict[str, Any]], environment: Mapping[str, str]) -> bool:
    """Whether KubeRay made this cluster, so that a RayService may own what it serves.

    nodes: `summary` of /nodes?view=summary. KubeRay sets RAY_NODE_TYPE_NAME of each pod to the
    name of its group, which Ray shows as the label ray.io/node-group, and calls the head's group
    "headgroup", always. In a pod its own variables say the same; of a head they also say whether
    the cluster is a RayService's.
    """
    if "kuberay_crd=RayCluster" in environment.get("RAY_USAGE_STATS_EXTRA_TAGS", "").split(";"):
        return False  # a cluster of nobody's: what it serves is its users' affair
    if "RAY_USAGE_STATS_KUBERAY_IN_USE" in environment:
        return True
    heads = [node.get("raylet") or {} for node in nodes]
    return any(
        raylet.get("isHeadNode")
        and (raylet.get("labels") or {}).get("ray.io/node-group") == _HEAD_GROUP
        for raylet in heads
    )
