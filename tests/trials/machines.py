"""Machines of a cluster, as far as one machine can pretend them.

Each is a network namespace with an address of its own, and its own processes, host name and /tmp,
so that each has all ports and a HAProxy at 8000. They share the cores and the file system. What
lies between them is `wire.py`'s. It takes root, and programs that every Linux has.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deployments.config.ray_inside import DEFAULTS
from deployments.deploying.clusters import Cluster
from deployments.deploying.dashboard import Dashboard, DashboardError
from deployments.deploying.live_view import metrics_pages, session_for
from deployments.deploying.rates import Rates, Samples, merged
from scripts.bench.child import Child, child
from scripts.bench.cluster import shipped_flags
from scripts.bench.process import our_environment, started, wait_until
from scripts.bench.service import Config, changed_config, is_ready, read_config

from .redis_server import Redis, redis_server

GCS_PORT, DASHBOARD_PORT, DOOR = 6379, 8265, 8000
NETWORK = "10.213.77"
US = f"{NETWORK}.254"
"""Where this process is on the wire: load comes from here, and Redis is here."""
START_TIMEOUT_S = 200.0
_IN_IT = 'mount --bind "$1" /tmp; hostname "$2"; shift 2; "$@"'


class Lacking(Exception):
    """What this machine has not, and the trial needs."""


def why_not() -> str | None:
    """What keeps machines from being pretended here, if anything does."""
    if os.geteuid() != 0:
        return "it takes root, for network namespaces"
    missing = [name for name in ("ip", "unshare", "redis-server") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: iproute2, util-linux, redis-server)"
    return None if Path("/dev/net/tun").exists() else "the kernel has no /dev/net/tun"


@dataclass
class Machine:
    """One of them. `init`: its first process, with which all others end."""

    name: str
    address: str
    namespace: str
    files: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _process: subprocess.Popen[Any] | None = None

    def lives(self) -> bool:
        """Whether what it was started with runs."""
        return self._process is not None and self._process.poll() is None

    def run(self, command: Sequence[str], env: dict[str, str]) -> None:
        """Starts it with this command, the last that it does."""
        words = ["ip", "netns", "exec", self.namespace, "unshare"]
        words += ["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words += ["sh", "-c", _IN_IT, "sh", str(self.files), self.name, *command]
        with Path(self.files, "log").open("ab") as log:
            self._process = self._stack.enter_context(
                started(
                    words, self.files, env={**our_environment(), **env}, ends_alone_s=0.0,
                    patience_s=0.0, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                )
            )  # fmt: skip

    def pids(self) -> list[int]:
        """All of its processes."""
        words = ["ip", "netns", "pids", self.namespace]
        told = subprocess.run(words, check=True, capture_output=True, text=True)
        return [int(pid) for pid in told.stdout.split()]

    def kill(self) -> int:
        """kill -9 of all that it runs, as where its power goes; says of how many processes."""
        killed = []
        for pid in self.pids():
            with suppress(psutil.NoSuchProcess):  # it ended since
                process = psutil.Process(pid)
                process.kill()
                killed.append(process)
        psutil.wait_procs(killed, timeout=10)
        self._stack.close()
        return len(killed)

    def end(self) -> None:
        """All that it runs, and its network."""
        try:
            self.kill()
        finally:
            subprocess.run(
                ["ip", "netns", "delete", self.namespace], check=False, capture_output=True
            )

    def log(self) -> str:
        return Path(self.files, "log").read_text(encoding="utf-8", errors="replace")


class Machines:
    """A head, workers and this process, on one wire. They end with `stack`, one by one."""

    def __init__(
        self,
        wire: Child,
        workers: Sequence[str],
        files: Path,
        redis: Redis | None,
        stack: ExitStack,
    ) -> None:
        self.wire, self.redis = wire, redis
        self.token = secrets.token_hex(16)
        self.dashboard_url = f"http://{NETWORK}.1:{DASHBOARD_PORT}"
        self._dashboard = Dashboard(Cluster(self.dashboard_url, "the trial", self.token))
        self.by_name: dict[str, Machine] = {}
        for number, name in enumerate(("head", *workers), start=1):
            folder = files / name
            folder.mkdir()
            namespace = f"rayclassify-{os.getpid()}-{name}"
            subprocess.run(["ip", "netns", "add", namespace], check=True, capture_output=True)
            machine = Machine(name, f"{NETWORK}.{number}", namespace, folder)
            self.by_name[name] = machine
            stack.callback(machine.end)
            wire.ask(do="join", name=name, address=machine.address, namespace=namespace)

    @property
    def head(self) -> Machine:
        return self.by_name["head"]

    def door(self, name: str) -> str:
        return f"http://{self.by_name[name].address}:{DOOR}"

    def start_head(self) -> None:
        """`ray start --head`, which takes no replicas; as the head pod of k8s/."""
        words = ["ray", "start", "--head", "--block", f"--node-ip-address={self.head.address}",
                 f"--port={GCS_PORT}", "--dashboard-host=0.0.0.0",
                 f"--dashboard-port={DASHBOARD_PORT}", "--num-cpus=0"]  # fmt: skip
        store = {}
        if self.redis:
            store["RAY_REDIS_ADDRESS"] = self.redis.address
            words.append(f"--redis-password={self.redis.password}")
        self.head.run(words, self._env(store))

    def start_worker(self, name: str, num_cpus: int, num_gpus: int = 0) -> None:
        """`ray start` on that machine; a replica can ask for it by a resource of its name."""
        machine = self.by_name[name]
        machine.run(
            ["ray", "start", "--block", f"--address={self.head.address}:{GCS_PORT}",
             f"--node-ip-address={machine.address}", f"--num-cpus={num_cpus}",
             f"--num-gpus={num_gpus}",
             f'--resources={{"{name}": 1000}}'],
            self._env({}),
        )  # fmt: skip

    def nodes(self) -> int:
        """How many are alive to Ray; 0 where the head does not answer."""
        try:
            told = self._dashboard.nodes().get("summary") or []
        except DashboardError:
            return 0
        return sum((one.get("raylet") or {}).get("state") == "ALIVE" for one in told)

    def status(self) -> dict[str, Any] | None:
        """The application as Serve tells it; None where the head does not answer."""
        try:
            found = self._dashboard.serve_details().get("applications") or {}
        except DashboardError:
            return None
        app: dict[str, Any] | None = found.get("classify")
        return app

    def config(self, changes: Sequence[str], options: dict[str, dict[str, Any]]) -> Config:
        """The shipped config with these changes. options: keys of a deployment by its name; None:
        without it."""
        config: Config = changed_config(read_config(), list(changes))
        del config["controller_options"]  # it is in each machine's environment
        app = config["applications"][0]
        app["import_path"] = "tests.trials.faulty:build"
        for one in app["deployments"]:
            one |= options.get(one["name"], {})
            for key in [key for key, value in one.items() if value is None]:
                del one[key]
        return config

    def deploy(self, changes: Sequence[str], options: dict[str, dict[str, Any]]) -> None:
        """Has Serve aim at that, as KubeRay does: by a PUT."""
        self._dashboard.put(self.config(changes, options))

    def is_whole(self, replicas: dict[str, int]) -> bool:
        """Whether Serve says RUNNING and has these replicas of each deployment, and no others."""
        app = self.status()
        if app is None or app["status"] != "RUNNING":
            return False
        there = {name: one["replicas"] for name, one in app["deployments"].items()}
        return {
            name: sum(replica["state"] == "RUNNING" for replica in found)
            for name, found in there.items()
        } == replicas and all(len(found) == replicas[name] for name, found in there.items())

    def counted(self) -> Samples:
        """Ray's metrics of all replicas, as of up to 10 s ago."""
        return merged(metrics_pages(self._dashboard, session_for(self._dashboard)))

    def texts(self, stage: str, now: Samples, before: Samples) -> dict[str, float]:
        """Machine → texts that its replicas took through that stage from one count to the other.

        By replica: what one counted that has ended since vanishes, and must not be taken off.
        """
        gained = Rates()
        gained.look({key: value - before.get(key, 0.0) for key, value in now.items()}, 0.0)
        by_address = gained.values("texts_total", "NodeAddress", stage=stage)
        return {name: by_address.get(one.address, 0.0) for name, one in self.by_name.items()}

    def answers(self, name: str) -> bool:
        """Whether that machine's HAProxy has a replica that is ready."""
        return is_ready(self.door(name))

    def _env(self, more: dict[str, str]) -> dict[str, str]:
        return {
            **DEFAULTS,
            **shipped_flags(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_SERVE_LOG_TO_STDERR": "0",
            # Of the HAProxies: else each machine would take four threads for itself.
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            # Workers wait for a new head as long as KubeRay has them wait.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
            "RAY_external_storage_namespace": "classify",
            **more,
        }


@contextmanager
def machines(
    workers: dict[str, int],
    with_redis: bool = False,
    gpus: Mapping[str, int] | None = None,
    reserve: Sequence[str] = (),
) -> Iterator[Machines]:
    """A head and workers (name → CPUs) that Ray knows; ended on exit, whatever happens.

    with_redis: what the head knows is kept there. gpus: how many a worker has, to Ray. reserve:
    machines that nothing is started on yet.

    Raises:
        Lacking: it can't be done here.
        TimeoutError: it does not start.
    """
    if reason := why_not():
        raise Lacking(reason)
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(
            prefix="machines", dir="/tmp", ignore_cleanup_errors=True
        )
        files = Path(stack.enter_context(folder))
        wire = stack.enter_context(child("tests.trials.wire"))
        wire.ask(do="join", name="us", address=US, device="rayclassify0")
        redis = stack.enter_context(redis_server(US)) if with_redis else None
        there = Machines(wire, [*workers, *reserve], files, redis, stack)
        there.start_head()
        wait_until(lambda: there.nodes() == 1, "the head", START_TIMEOUT_S)
        num_gpus = {name: (gpus or {}).get(name, 0) for name in workers}

        def joined() -> bool:
            """Ray gives up where a head takes long to answer; as a pod, it is started again."""
            for name, num_cpus in workers.items():
                if not there.by_name[name].lives():
                    there.start_worker(name, num_cpus, num_gpus[name])
            return there.nodes() == 1 + len(workers)

        wait_until(joined, "the workers", START_TIMEOUT_S)
        yield there
