"""Mode `surge`: `rayclassify deploy` where an update finds room beside what runs, and where not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployments.launch.targets import STATE_DIR_ENV
from scripts.bench.machine import ROOT
from scripts.bench.process import our_environment, started, wait_until

from .machines import Machines, machines, why_not
from .session import Part, Session
from .steady import Seen, steady_load

WORKERS = {"cpu1": 3, "gpu1": 1, "gpu2": 1}
GPUS = {"gpu1": 1, "gpu2": 1}
MORE = "gpu3"
LIMIT_S = 240.0
RATE_PER_S = 20.0
SAID = "where there is room for an update is said before it starts, and it fails no request"
SAID_NOT = "where there is none that is said too; the old model serves on until there is"


def options(classifiers: int) -> dict[str, dict[str, Any]]:
    """A Classifier takes a GPU; an update needs one more for each, as all may be new at once."""
    small = {"autoscaling_config": None, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.2}}
    on_gpu = {"num_cpus": 0.2, "num_gpus": 1}
    return {
        "Tokenizer": small,
        "Classifier": {**small, "num_replicas": classifiers, "ray_actor_options": on_gpu},
        "Postprocessor": small,
    }


@dataclass
class Deploying:
    """`rayclassify deploy` as a user runs it. `output`: what it printed so far."""

    process: subprocess.Popen[Any]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def says(self, words: str) -> bool:
        return words in self.output

    def code(self) -> int:
        """Its exit code, once it has ended."""
        wait_until(lambda: self.process.poll() is not None, "the deploy to end", LIMIT_S)
        return int(self.process.returncode)


class Deployer:
    """Deploys config files by the command."""

    def __init__(self, there: Machines, folder: Path) -> None:
        self._there, self._folder, self._number = there, folder, 0

    def run(self, changes: Sequence[str], classifiers: int) -> Any:
        """A context manager around the running command."""
        self._number += 1
        config = self._folder / f"{self._number}.yaml"
        config.write_text(
            yaml.safe_dump(self._there.config(changes, options(classifiers))), encoding="utf-8"
        )
        env = {
            **our_environment(),
            "RAY_AUTH_TOKEN": self._there.token,
            STATE_DIR_ENV: str(self._folder / "state"),
        }
        command = [sys.executable, "-m", "deployments.cli", "deploy", str(config)]
        command += ["--address", self._there.dashboard_url, "--timeout-s", f"{LIMIT_S:g}"]
        log = self._folder / f"{self._number}.log"
        return _Running(command, self._folder, env, log)


class _Running:
    def __init__(self, command: list[str], run: Path, env: dict[str, str], log: Path) -> None:
        self._log = log
        self._file = log.open("wb")
        self._started = started(command, run, env=env, stdout=self._file, stderr=self._file)

    def __enter__(self) -> Deploying:
        return Deploying(self._started.__enter__(), self._log)

    def __exit__(self, *exc: Any) -> None:
        self._started.__exit__(*exc)
        self._file.close()


def try_surge(session: Session) -> None:
    with session.mode("surge", 3) as part:
        if reason := why_not():
            part.add(SAID, "not tried", 0, reason, kept=False)
            return
        session.step("surge: starting")
        with (
            tempfile.TemporaryDirectory() as folder,
            machines(WORKERS, gpus=GPUS, reserve=(MORE,)) as there,
        ):
            deployer = Deployer(there, Path(folder))
            with deployer.run(["engine.name=none"], 1) as first:
                if first.code():
                    raise RuntimeError(first.output)
            wait_until(lambda: there.answers("cpu1"), "the door", LIMIT_S)
            _with_room(session, part, there, deployer)
            _without_room(session, part, there, deployer)


def _with_room(session: Session, part: Part, there: Machines, deployer: Deployer) -> None:
    how = "1 Classifier with a GPU, 2 GPUs on two nodes"
    with session.trying(part, SAID, how):
        with steady_load(there.door("cpu1"), RATE_PER_S) as load:
            wait_until(lambda: len(load.asked) > RATE_PER_S, "the first answers", LIMIT_S)
            with deployer.run(["engine.name=none", "limits.max_queue_s=9"], 1) as deploying:
                code = deploying.code()
        seen, output = Seen(load.asked), deploying.output
        (line,) = re.findall(r"^Classifier: 1 replica .*$", output, re.MULTILINE) or ("nothing",)
        before = output.find("Classifier: 1 replica") < output.find("Deploying classify")
        free = there.by_name["gpu2"].address in line or there.by_name["gpu1"].address in line
        part.figures[how] = {"output": _shown(output), "outcomes": dict(seen.outcomes)}
        kept = not code and before and free and not seen.not_right
        part.add(SAID, how, seen.asked, f"said: {line}; {seen}", kept)


def _without_room(session: Session, part: Part, there: Machines, deployer: Deployer) -> None:
    how = "2 Classifiers, 2 GPUs; a node with a third GPU comes while the update waits"
    with session.trying(part, SAID_NOT, how):
        with deployer.run(["engine.name=none", "limits.max_queue_s=9"], 2) as more:
            if more.code():
                raise RuntimeError(more.output)
        with steady_load(there.door("cpu1"), RATE_PER_S) as load:
            wait_until(lambda: len(load.asked) > RATE_PER_S, "the first answers", LIMIT_S)
            with deployer.run(["engine.name=none", "limits.max_queue_s=8"], 2) as deploying:
                # First said, then seen: it waits for a GPU, and says so again.
                wait_until(lambda: deploying.says("no room: Classifier"), "it to wait", LIMIT_S)
                began = time.monotonic()
                there.start_worker(MORE, 1, 1)
                code = deploying.code()
                took_s = time.monotonic() - began
        seen, output = Seen(load.asked), deploying.output
        said = output.find("no room for the surge: Classifier")
        before = 0 <= said < output.find("Deploying classify")
        part.figures[how] = {"output": _shown(output), "outcomes": dict(seen.outcomes)}
        told = f"said before it started: {before}; served {took_s:.0f} s after `ray start` there"
        part.add(
            SAID_NOT, how, seen.asked, f"{told}; {seen}", before and not code and not seen.not_right
        )


def _shown(output: str) -> list[str]:
    """Its lines, without where this machine keeps its files."""
    return [
        re.sub(r"(Kept, to go back to: ).*", r"\1…", line).replace(f"{ROOT}{os.sep}", "")
        for line in output.splitlines()
    ]
