"""Our own service, started from a Serve config with some changes, and stopped again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from deployments.bench.client import Endpoint
from deployments.launch import ports, processes

from .machine import ROOT
from .process import our_environment, started

CONFIG = ROOT / "serve_config.yaml"
Config = dict[str, Any]
START_TIMEOUT_S = 300.0


class ServiceFailed(Exception):
    """It did not come up; the message is the last that it said."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that answers. `info`: what GET /info says; `log`: what the launcher printed.

    process: the launcher.
    """

    endpoint: Endpoint
    info: dict[str, Any]
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def run_dir(self) -> Path:
        """The directory that the launcher made for this run."""
        return run_dir_of(self.log.read_text(encoding="utf-8"))

    @property
    def ray_address(self) -> str:
        """Of this run's Ray: `auto` would take any that runs on this machine."""
        words = set()
        for process in processes.of_run(self.run_dir):
            with suppress(psutil.Error):
                words |= set(process.cmdline())
        found = (re.fullmatch(r"--gcs-address=([0-9.:]+)", word) for word in words)
        (address,) = {match[1] for match in found if match}
        return address


@contextmanager
def running_service(
    changes: Sequence[str],
    config: Config | None = None,
    scales: bool = False,
    root: Path = ROOT,
) -> Iterator[Service]:
    """A service of `config`, the shipped one by default, with `changes` (`engine.name=none`).

    It has one replica of each deployment; if it `scales`, as many as the config's autoscaling
    takes for good. root: the checkout whose code it runs.

    Raises:
        ServiceFailed
    """
    with tempfile.TemporaryDirectory() as run:
        file, log = Path(run, "serve.yaml"), Path(run, "log")
        port = free_port()
        changed = changed_config(config or read_config(), changes, scales)
        changed["http_options"]["port"] = port
        file.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "deployments.cli", "serve", str(file)]
        with ExitStack() as stack:
            out = stack.enter_context(log.open("wb"))
            stack.callback(_end_what_is_left, log)
            process = stack.enter_context(
                started(
                    command,
                    Path(run),
                    env=our_environment(root),
                    cwd=root,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    ends_alone_s=0.5,
                    patience_s=90.0,
                )
            )
            url = f"http://127.0.0.1:{port}"
            wait_ready(process, url, log)
            info = requests.get(f"{url}/info", timeout=30).json()
            # Figures are kept in the repository: they name no directory of this machine.
            info["model"] = info["model"].removeprefix(f"{ROOT}/")
            yield Service(our_endpoint(url), info, log, process)


def _end_what_is_left(log: Path) -> None:
    """A launcher that had to be killed has ended nothing of its run."""
    with suppress(ValueError):
        processes.end(processes.of_run(run_dir_of(log.read_text(encoding="utf-8"))))


def run_dir_of(printed: str) -> Path:
    """The directory of a run, out of what its launcher has printed."""
    found = re.search(r"^Log: (\S+)/serve\.log$", printed, re.MULTILINE)
    if found is None:
        raise ValueError(f"the launcher names no log: {printed[-300:]}")
    return Path(found[1])


def our_endpoint(url: str) -> Endpoint:
    return Endpoint(
        url,
        "/classify",
        body=lambda text: json.dumps({"text": text}, ensure_ascii=False).encode(),
        label_of=lambda answer: str(json.loads(answer)["label"]),
    )


def read_config(path: Path = CONFIG) -> Config:
    """A Serve config, the shipped one by default."""
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def changed_config(config: Config, changes: Sequence[str], scales: bool = False) -> Config:
    """`config` with `a.b=value` set under `args:`, or `Classifier.x=value` in a `user_config:`.

    Every deployment gets the replicas that it starts with, no more, unless it `scales`: one that
    starts in the middle of a run would be measured too.
    """
    application = config["applications"][0]
    deployments = {one["name"]: one for one in application["deployments"]}
    for one in deployments.values():
        if scales:
            continue
        if (scaling := one.pop("autoscaling_config", None)) is not None:
            one["num_replicas"] = scaling.get("initial_replicas") or scaling["min_replicas"]
    for change in changes:
        path, _, value = change.partition("=")
        first, *rest = path.split(".")
        target = application["args"]
        if first in deployments:
            target = deployments[first].setdefault("user_config", {})
        *sections, name = rest if first in deployments else [first, *rest]
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = yaml.safe_load(value)
    return config


def is_ready(url: str) -> bool:
    """Whether a service answers there, with a loaded model."""
    try:
        return requests.get(f"{url}/ready", timeout=2).ok
    except requests.RequestException:
        return False


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Returns when the service answers with a loaded model.

    Raises:
        ServiceFailed: it ended before, or took too long.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if is_ready(url):
            return
        time.sleep(0.2)  # asked without a pause, it would take a core from what is starting
    lines = [line for line in log.read_text(errors="replace").splitlines() if "error" in line]
    raise ServiceFailed((lines or ["not ready in time"])[0][:300])


def free_port(in_a_row: int = 1) -> int:
    """The first of so many ports that nobody listens on and only this process will."""
    while True:
        row = [ports.next_port() for _ in range(in_a_row)]
        if row[-1] - row[0] == in_a_row - 1:
            return row[0]
