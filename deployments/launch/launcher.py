"""`serve run` as a child: started, watched until it answers, followed, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml
from rich.console import Console

from deployments.config.ray_inside import ADMIN_SOCKET, MIN_DRAINING
from deployments.launch import processes, progress
from deployments.launch.environment import (
    child_config,
    child_environment,
    cluster_address,
    new_run_dir,
)
from deployments.launch.ingress import Ingress, drain
from deployments.launch.kept_logs import LOG_FILE, OWNER_FILE
from deployments.launch.plan import Plan
from deployments.launch.progress import StartFailed
from deployments.launch.targets import METRICS_PORT
from deployments.pipeline.causes import is_loud, is_warning
from deployments.privacy.coredump import forbid_core_dumps

INGRESS = "Tokenizer"
_TICK_S = 0.2
_ASK_DASHBOARD_EVERY_S = 1.0
# `serve run` gives Serve 30 s to drain, then ends Ray.
_DRAIN_S = 45.0
_TELL_AFTER_S = 3.0
# What has nothing to finish gets this between SIGTERM and SIGKILL: Ray's own processes, and all
# before anything is served.
_END_S = 0.5
_ALL_ENDED_S = 10.0


class StopSignals:
    """Ctrl-C and its kin as events, so that stopping is a step of the programme and no accident.

    `asked` after the first signal, `hurried` after the second; from now on to the process's end.
    """

    def __init__(self) -> None:
        self.asked, self.hurried = threading.Event(), threading.Event()
        # A handler also undoes "ignore", which background jobs inherit from some shells and would
        # hand on to the child, which then could not be interrupted.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, *_: object) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()


class Launcher:
    """One run of the service. Its directory goes with its processes; `kept_logs` keeps the logs."""

    def __init__(
        self,
        plan: Plan,
        ingress: Ingress,
        console: Console,
        verbose: bool,
        metrics_port: int = METRICS_PORT,
    ) -> None:
        self.metrics_port = metrics_port
        self.plan, self.ingress = plan, ingress
        self.run_dir = new_run_dir()
        self.log = self.run_dir / LOG_FILE
        self.log.touch()
        (self.run_dir / OWNER_FILE).write_text(processes.owner_name(), encoding="utf-8")
        self._output = progress.ChildLog(self.log)
        self._console, self._verbose = console, verbose
        self._session = progress.local_session()
        self._child: subprocess.Popen[bytes] | None = None
        self._ask_dashboard_at = 0.0
        self._phase = progress.STARTING_RAY

    def start(self, config: dict[str, Any]) -> None:
        """Begins `serve run` in a session of its own: the terminal's Ctrl-C reaches only us."""
        env = dict(os.environ)
        # Not the script `serve`: where pip installs for a user, it is not beside Python.
        command = ["-m", "ray.serve.scripts", "run"]
        if cluster_address() is None:
            command = ["-m", "deployments.launch.child", str(self.metrics_port)]
            env = child_environment(self.run_dir, self.plan, self.ingress)
            config = child_config(config, self.ingress, Path.cwd())
        path = self.run_dir / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        forbid_core_dumps()  # nor of HAProxy and Ray, through which texts go too
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603
                [sys.executable, *command, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    def wait_ready(self, stop: StopSignals, timeout_s: float) -> bool:
        """True once the service answers, False if somebody asked to stop before.

        Raises:
            StartFailed: the child died, the deployment failed, or it took too long.
        """
        deadline = time.monotonic() + timeout_s
        with self._console.status(self._phase) as status:
            while not stop.asked.wait(_TICK_S):
                # Errors of a start are told once, when Serve has given up trying again.
                self._follow(is_warning, "it ended before it was ready")
                with contextlib.suppress(requests.RequestException):
                    if self._session.get(self.plan.ready_url, timeout=2).ok:
                        return True
                self._check_progress()
                status.update(self._phase)
                if time.monotonic() > deadline:
                    raise StartFailed(
                        f"not ready after {timeout_s:g} s; it was still {self._phase}. "
                        "Give it more time with --timeout-s.",
                        self._output.cause(),
                    )
        return False

    def follow(self, stop: StopSignals) -> None:
        """Shows warnings and errors until somebody asks to stop.

        Raises:
            StartFailed: the child died.
        """
        while not stop.asked.wait(_TICK_S):
            self._follow(is_loud, "`serve run` ended by itself")

    def stop(self, stop: StopSignals, ready: bool) -> list[psutil.Process]:
        """Drains, then ends every process of the run. Returns what would not end."""
        child = self._child
        if child is not None and child.poll() is None:
            door_closed = ready and self._close_door(stop)
            child.send_signal(signal.SIGINT)
            self._await_child(child, stop, ready, door_closed)
        self._output.close()
        deadline = time.monotonic() + _ALL_ENDED_S
        # Asked anew each time: Ray's daemons restart each other while they end.
        while living := processes.of_run(self.run_dir, child.pid if child else None):
            if time.monotonic() > deadline:
                break
            processes.end(living, _END_S)
        return living

    def _close_door(self, stop: StopSignals) -> bool:
        """Whether HAProxy stood there."""

        def tell(under_way: int) -> None:
            at_most = f"{self.plan.request_s:g} s at most"
            self.tell(f"Waiting for {under_way} requests under way, {at_most}")

        # Serve puts it in a directory named after the node; there is one here.
        admin_sockets = list(self.run_dir.glob(f"*/{ADMIN_SOCKET}"))
        for admin_socket in admin_sockets:
            if left := drain(admin_socket, self.plan.request_s, stop.hurried, tell):
                self.tell(f"{left} requests are cut off.")
        return bool(admin_sockets)

    def _await_child(
        self, child: subprocess.Popen[bytes], stop: StopSignals, ready: bool, door_closed: bool
    ) -> None:
        """Waits while replicas answer what they have accepted, and for nothing after that."""
        replicas = processes.replicas(processes.of_run(self.run_dir, child.pid))
        if door_closed:
            # They wait for HAProxy to notice that they go; without Classifiers they can't answer.
            replicas = {there: name for there, name in replicas.items() if name != INGRESS}
        # In a cluster of somebody's, replicas are elsewhere, and the child ends when it is done.
        only_replicas = ready and bool(replicas)
        began, told = time.monotonic(), False
        while child.poll() is None and time.monotonic() < began + (_DRAIN_S if ready else _END_S):
            if stop.hurried.wait(_TICK_S):
                return
            living = processes.wait(replicas, 0.0)
            if only_replicas and not living:
                return
            if only_replicas and not told and time.monotonic() > began + _TELL_AFTER_S:
                told = True
                self.tell(f"Waiting for {', '.join(sorted(set(replicas.values())))} to end")
                if door_closed:
                    self.tell(
                        f"Serve stops them after {INGRESS}, which it keeps for the seconds of "
                        f"{MIN_DRAINING}"
                    )

    def tell(self, line: str) -> None:
        """Prints, if anybody still listens: a closed terminal or pipe keeps nobody from stopping.

        rich ends the programme by SystemExit where the pipe is closed.
        """
        with contextlib.suppress(OSError, SystemExit):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _check_progress(self) -> None:
        now = time.monotonic()
        if self._output.dashboard is None or now < self._ask_dashboard_at:
            return
        self._ask_dashboard_at = now + _ASK_DASHBOARD_EVERY_S
        phase = progress.ask_phase(self._session, self._output.dashboard, self.plan.app)
        if phase != self._phase and not self._console.is_terminal:
            self._console.print(f"{phase} ...", highlight=False)  # else the spinner shows it
        self._phase = phase

    def _follow(self, shown: Callable[[str], bool], if_dead: str) -> None:
        """Prints what the child has written; raises StartFailed where it has ended."""
        ended = self._child is not None and self._child.poll() is not None
        for line in self._output.read():
            if self._verbose or shown(line):
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        if ended:
            raise StartFailed(if_dead, self._output.cause())
