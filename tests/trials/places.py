"""Everywhere that a running service writes or shows anything."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import requests

from deployments.launch import processes
from deployments.launch.progress import ChildLog, local_session
from deployments.launch.token_file import read_token
from scripts.bench.service import Service

TIMEOUT_S = 20
# What the dashboard's pages and `ray list`, `ray summary`, `ray timeline` are made of.
_DASHBOARD = (
    "/api/serve/applications/",
    "/api/v0/tasks?detail=1&limit=10000",
    "/api/v0/actors?detail=1&limit=1000",
    "/api/v0/objects?detail=1&limit=10000",
    "/api/v0/workers?detail=1&limit=1000",
    "/api/v0/runtime_envs?detail=1",
    "/api/v0/cluster_events?detail=1",
    "/api/v0/tasks/summarize",
    "/api/v0/actors/summarize",
    "/api/v0/objects/summarize",
    "/api/v0/tasks/timeline",
    "/api/jobs/",
    "/api/cluster_status",
    "/api/component_activities",
    "/logical/actors",
    "/nodes?view=summary",
    "/events",
)


@dataclass(frozen=True, slots=True)
class Place:
    """A file, a page or an answer, as bytes. kind: what it is one of."""

    kind: str
    name: str
    data: bytes


class Run:
    """One run of the service, by the directory that the launcher made for it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.dir, self._launcher_log = service.run_dir, service.log
        child = ChildLog(self.dir / "serve.log")
        child.read()
        child.close()
        self._dashboard = child.dashboard
        self._session = local_session()

    def places(self) -> Iterator[Place]:
        """All of them, one after the other; sockets have nothing to read."""
        yield Place("launcher", "standard output", self._launcher_log.read_bytes())
        yield from files_below(self.dir)
        yield from self._dashboard_pages()
        yield from self._metrics()
        yield from self._haproxy()
        for process in processes.of_run(self.dir):
            yield Place("process", f"/proc/{process.pid}/cmdline", _cmdline(process.pid))

    def ray_address(self) -> str:
        """Of this run's Ray."""
        return self._service.ray_address

    def replica_pid(self, deployment: str) -> int:
        """The process of a deployment's only replica, once it runs."""
        pages = json.loads(self._ask("/api/serve/applications/"))
        replicas = pages["applications"]["classify"]["deployments"][deployment]["replicas"]
        (pid,) = (one["pid"] for one in replicas if one["state"] == "RUNNING")
        return int(pid)

    def _dashboard_pages(self) -> Iterator[Place]:
        for path in _DASHBOARD:
            yield Place("dashboard", path, self._ask(path))

    def _ask(self, path: str) -> bytes:
        token = {"Authorization": f"Bearer {read_token(os.environ)}"}
        answer = self._session.get(f"{self._dashboard}{path}", headers=token, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.content

    def _metrics(self) -> Iterator[Place]:
        (listed,) = self.dir.glob("ray/session_2*/prom_metrics_service_discovery.json")
        for group in json.loads(listed.read_text()):
            for target in group["targets"]:
                answer = self._session.get(f"http://{target}/metrics", timeout=TIMEOUT_S)
                yield Place("metrics", target, answer.content)

    def _haproxy(self) -> Iterator[Place]:
        (path,) = self.dir.glob("*/haproxy.cfg")  # below a name for the node
        config = path.read_text()
        ports = re.findall(r"^frontend prometheus\s+bind :(\d+)", config, re.MULTILINE)
        stats = re.findall(r"^listen stats\s+bind \*:(\d+)", config, re.MULTILINE)
        for page in (f"{ports[0]}/metrics", f"{stats[0]}/stats"):
            answer = requests.get(f"http://127.0.0.1:{page}", timeout=TIMEOUT_S)
            yield Place("HAProxy", page, answer.content)
        for command in ("show stat", "show info", "show sess all"):
            yield Place("HAProxy", command, self.haproxy_says(command))

    def haproxy_says(self, command: str) -> bytes:
        """The answer of HAProxy's admin socket."""
        (path,) = self.dir.glob("*/admin.sock")
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(TIMEOUT_S)
            admin.connect(str(path))
            admin.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: admin.recv(65_536), b""))


def files_below(directory: Path, kind: str = "file") -> Iterator[Place]:
    """Every file, whatever its name. Links are not followed: what they name is below too."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                try:
                    data = path.read_bytes()
                except FileNotFoundError:  # a rotation or a clean-up was faster
                    continue
                yield Place(kind, str(path.relative_to(directory)), data)


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Syslog:
    """Listens where HAProxy sends its log lines, as a syslog daemon would. A context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._lines: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def place(self) -> Place:
        return Place("syslog", "datagrams from HAProxy", b"\n".join(self._lines))

    def _listen(self) -> None:
        while line := self._socket.recv(65_536):
            self._lines.append(line)

    def __enter__(self) -> Syslog:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(5)
        self._socket.close()
