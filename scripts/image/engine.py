"""docker or podman, by their command line: the options used here are spelt alike in both."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class EngineError(RuntimeError):
    """A command of the engine failed; the message holds the command and the end of its output."""


@dataclass(frozen=True, slots=True)
class Engine:
    """name: docker or podman. build_options: more for their `build`, as a mirror needs it."""

    name: str
    build_options: tuple[str, ...] = ()

    def call(self, *arguments: str, text: str | None = None, timeout_s: float = 3600) -> str:
        """Runs the engine, gives its stdout. Raises EngineError."""
        done = subprocess.run(
            [self.name, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            end = (done.stderr or done.stdout)[-2000:]
            raise EngineError(
                f"{self.name} {' '.join(arguments)} ended with {done.returncode}:\n{end}"
            )
        return done.stdout

    def build(
        self, context: Path, tag: str, build_args: dict[str, str], dockerfile: str = ""
    ) -> None:
        """Builds with the output on the terminal. dockerfile: its text, if not the context's own.

        Raises EngineError.
        """
        given = [f"--build-arg={name}={value}" for name, value in build_args.items()]
        command = [self.name, "build", *self.build_options, *given, f"--tag={tag}"]
        command += ["--file=-", str(context)] if dockerfile else [str(context)]
        if subprocess.run(command, input=dockerfile or None, text=True, check=False).returncode:
            raise EngineError(f"{' '.join(command)} failed; its output is above.")

    def once(self, image: str, *command: str, text: str | None = None) -> str:
        """A command's stdout, in a container that is gone afterwards. Raises EngineError."""
        return self.call(
            "run", "--rm", "--interactive", "--network=none", image, *command, text=text
        )

    @contextmanager
    def container(
        self, image: str, *command: str, environment: dict[str, str] | None = None
    ) -> Iterator[Container]:
        """A container as a strict cluster runs it: only /tmp and /dev/shm can be written."""
        name = f"rayclassify-{time.time_ns()}"
        self.call(
            *("run", "--detach", f"--name={name}", "--network=none", "--shm-size=1g"),
            *("--read-only", "--tmpfs=/tmp:mode=1777", "--env=HOME=/tmp"),
            *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *(f"--env={key}={value}" for key, value in (environment or {}).items()),
            *(image, *command),
        )
        container = Container(self, name)
        try:
            yield container
        finally:
            self.call("rm", "--force", name)


@dataclass(frozen=True, slots=True)
class Container:
    """A running container; what is asked of it is asked from inside, by its own programs."""

    engine: Engine
    name: str

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """`bash -c` inside, as KubeRay's probes are run."""
        return subprocess.run(
            [self.engine.name, "exec", self.name, "bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def wait(self, command: str, timeout_s: float) -> float:
        """Seconds until the command succeeds. Raises EngineError with the log's end."""
        start = time.monotonic()
        while self.run(command).returncode:
            if time.monotonic() - start > timeout_s or not self.running():
                raise EngineError(f"{command!r} never succeeded:\n{self.log()[-3000:]}")
            time.sleep(1)
        return time.monotonic() - start

    def running(self) -> bool:
        return self.engine.call("inspect", "--format={{.State.Running}}", self.name) == "true\n"

    def log(self) -> str:
        done = subprocess.run(
            [self.engine.name, "logs", self.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def stop(self, grace_s: int) -> tuple[int, float]:
        """SIGTERM, then SIGKILL after grace_s: the exit code (137: killed) and the seconds."""
        start = time.monotonic()
        self.engine.call("stop", f"--time={grace_s}", self.name)
        code = int(self.engine.call("inspect", "--format={{.State.ExitCode}}", self.name))
        return code, time.monotonic() - start
