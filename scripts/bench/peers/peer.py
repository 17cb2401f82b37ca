"""What a peer is: what to install, how to start it, and how to speak to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from deployments.bench.client import Endpoint

ROOT = Path(__file__).resolve().parents[3]
SERVERS = Path(__file__).with_name("servers")


class PeerUnavailable(Exception):
    """This peer can't run here; the message says why, in one line that may be printed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a peer. `bin`: of its Python environment; `folder`: for files and logs."""

    bin: Path
    folder: Path
    model_dir: Path
    dtype: str
    num_threads: int
    port: int


def no_env(run: Run) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with.

    dtypes: the precisions it offers, by torch's names, and "none" for a null model.
    setup: one line for the report: how it was set up, and on whose advice.
    requirements: what pip installs into its own environment; none: it runs in the project's.
    env: environment variables of one run, beyond those that all get.
    """

    name: str
    title: str
    setup: str
    dtypes: tuple[str, ...]
    requirements: tuple[str, ...]
    packages: tuple[str, ...]  # whose versions are reported
    command: Callable[[Run], Sequence[str]]
    path: str
    body: Callable[[str], bytes]
    label_of: Callable[[bytes], str]
    env: Callable[[Run], dict[str, str]] = field(default=no_env)
    environment: str = ""  # of another peer, to share it

    @property
    def folder(self) -> Path:
        """Its environment, files and logs; in RAYCLASSIFY_BENCH_DIR, build/peers by default."""
        base = Path(os.environ.get("RAYCLASSIFY_BENCH_DIR") or ROOT / "build" / "peers")
        return base.resolve() / (self.environment or self.name)

    @property
    def bin(self) -> Path:
        """Where its Python lies. Symbolic links stay: they are what makes an environment one."""
        return self.folder / "bin" if self.requirements else Path(sys.executable).parent

    @property
    def versions(self) -> dict[str, str]:
        """Of `packages`, as installed; empty before the first run."""
        site = self.bin.parent.glob("lib/python*/site-packages")
        found = {
            d.name.lower().replace("_", "-"): d.version
            for d in distributions(path=[str(p) for p in site])
        }
        return {name: found[name] for name in self.packages if name in found}

    def endpoint(self, port: int) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{port}", self.path, self.body, self.label_of)
