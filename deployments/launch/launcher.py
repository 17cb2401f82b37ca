"""`serve run` as a child: started, watched until it answers, followed, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml
from rich.console import Console

from deployments.launch import processes, progress
from deployments.launch.childlog import ChildLog
from deployments.launch.drain import ADMIN_SOCKET, drain
from deployments.launch.environment import child_config, child_environment, cluster_address
from deployments.launch.ingress import Ingress
from deployments.launch.plan import Plan
from deployments.launch.rundir import RunDir
from deployments.launch.signals import StopSignals
from deployments.pipeline.causes import causes, is_loud, is_warning
from deployments.privacy.coredump import forbid_core_dumps

_TICK_S = 0.2
_ASK_DASHBOARD_EVERY_S = 1.0
INGRESS = "Tokenizer"
# `serve run` gives Serve 30 s to drain, then ends Ray.
_DRAIN_S = 45.0
_ABORT_S = 1.0  # nothing is served yet: nothing to drain
_TELL_AFTER_S = 3.0
_END_S = 1.0  # of Ray's own processes, which have nothing to finish


class StartFailed(Exception):
    """It did not come up. `lines` say why, as far as the child told."""

    def __init__(self, message: str, lines: list[str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.lines = lines or []


class Launcher:
    """One run of the service."""

    def __init__(self, plan: Plan, ingress: Ingress, console: Console, verbose: bool) -> None:
        self.plan, self.ingress = plan, ingress
        self.run = RunDir()
        self._console, self._verbose = console, verbose
        self._session = progress.local_session()
        self._child: subprocess.Popen[bytes] | None = None
        self.run.log.touch()
        self._log = ChildLog(self.run.log)
        self._asked_dashboard_at = 0.0
        self._phase = progress.STARTING_RAY

    def start(self, config: dict[str, Any]) -> None:
        """Begins `serve run` in a session of its own: the terminal's Ctrl-C reaches only us."""
        if cluster_address() is None:
            env = child_environment(self.run.path, self.plan, self.ingress)
            config = child_config(config, self.ingress, Path.cwd())
        else:
            env = dict(os.environ)
        self.run.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        forbid_core_dumps()  # nor of HAProxy and Ray, through which texts go too
        # Not the script `serve`: where pip installs for a user, it is not beside the interpreter.
        command = [sys.executable, "-m", "ray.serve.scripts", "run", str(self.run.config)]
        with self.run.log.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603
                command,
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
                self._follow(starting=True)
                self._check_alive("it ended before it was ready")
                if self._answers():
                    return True
                self._check_progress()
                status.update(self._phase)
                if time.monotonic() > deadline:
                    raise StartFailed(
                        f"not ready after {timeout_s:g} s; it was still {self._phase}. "
                        "Give it more time with --timeout-s.",
                        self._log.cause(),
                    )
        return False

    def follow(self, stop: StopSignals) -> None:
        """Shows warnings and errors until somebody asks to stop.

        Raises:
            StartFailed: the child died.
        """
        while not stop.asked.wait(_TICK_S):
            self._follow()
            self._check_alive("`serve run` ended by itself")

    def stop(self, stop: StopSignals, ready: bool) -> list[psutil.Process]:
        """Drains, then ends every process of the run. Returns what would not end."""
        child = self._child
        session = child.pid if child is not None else None
        if child is not None and child.poll() is None:
            door_closed = False
            if ready:
                # Serve puts it in a directory named after the node; there is one here.
                for admin_socket in self.run.path.glob(f"*/{ADMIN_SOCKET}"):
                    left = drain(
                        admin_socket, self.plan.request_s, stop.hurried, self._tell_under_way
                    )
                    if left:
                        self._tell(f"{left} requests are cut off.")
                    door_closed = True
            child.send_signal(signal.SIGINT)
            self._await_child(child, stop, ready, door_closed)
        survivors = processes.of_run(self.run.path, session)
        patience_s = 1.0 if stop.hurried.is_set() else _END_S
        survivors = processes.end(survivors, patience_s)
        if child is not None:
            child.poll()
        self._log.close()
        # What was born while the others ended: Ray's daemons restart each other.
        newborn = processes.of_run(self.run.path, session)
        return [*survivors, *processes.end(newborn, patience_s=2.0)]

    def _await_child(
        self, child: subprocess.Popen[bytes], stop: StopSignals, ready: bool, door_closed: bool
    ) -> None:
        """Waits while replicas answer what they have accepted, and for nothing after that."""
        replicas = processes.replicas(processes.of_run(self.run.path, child.pid))
        if door_closed:
            # They wait for HAProxy to notice that they go; without Classifiers they can't answer.
            replicas = {there: name for there, name in replicas.items() if name != INGRESS}
        # In a cluster of somebody's, replicas are elsewhere, and the child ends when it is done.
        only_replicas = ready and bool(replicas)
        patience_s = _DRAIN_S if ready else _ABORT_S
        began = time.monotonic()
        told = False
        while child.poll() is None and time.monotonic() < began + patience_s:
            if stop.hurried.wait(_TICK_S):
                return
            living = processes.wait(replicas, 0.0)
            if only_replicas and not living:
                return
            if only_replicas and not told and time.monotonic() > began + _TELL_AFTER_S:
                told = True
                names = ", ".join(sorted({replicas[process] for process in living}))
                self._tell(f"Waiting for replicas to end: {names}")

    def _tell_under_way(self, requests_under_way: int) -> None:
        self._tell(
            f"Waiting for {requests_under_way} requests under way, "
            f"{self.plan.request_s:g} s at most"
        )

    def _tell(self, line: str) -> None:
        # A closed terminal or pipe must not keep us from stopping.
        with contextlib.suppress(OSError, SystemExit):
            self._console.print(line, highlight=False, soft_wrap=True)

    def _answers(self) -> bool:
        try:
            return self._session.get(self.plan.ready_url, timeout=2).ok
        except requests.RequestException:
            return False

    def _check_alive(self, message: str) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._follow(starting=True)
            raise StartFailed(message, self._log.cause())

    def _check_progress(self) -> None:
        now = time.monotonic()
        if self._log.dashboard is None or now < self._asked_dashboard_at + _ASK_DASHBOARD_EVERY_S:
            return
        self._asked_dashboard_at = now
        told = progress.read_progress(self._session, self._log.dashboard, self.plan.app)
        if told.failure is not None:
            raise StartFailed("the deployment failed", causes(told.failure.splitlines()))
        self._enter(told.phase)

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            if not self._console.is_terminal:  # the spinner shows it on a terminal
                self._console.print(f"{phase} ...", highlight=False)

    def _follow(self, starting: bool = False) -> None:
        for line in self._log.read():
            # Errors of a start are told once, when Serve has given up trying again.
            shown = is_warning(line) if starting else is_loud(line)
            if self._verbose or shown:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
