"""Where Prometheus finds the metrics of what runs on this machine: a file that it looks at again.

One for each service, named by its port: `rayclassify serve` writes it, and takes it away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from deployments.model.cache import write_wholly

STATE_DIR_ENV = "RAYCLASSIFY_STATE_DIR"
METRICS_PORT = 8080
"""Of a Ray that we start, where it is free: as KubeRay's pods have it."""


def state_dir() -> Path:
    """The user's directory for what outlives a run; `RAYCLASSIFY_STATE_DIR` names another one."""
    named = os.environ.get(STATE_DIR_ENV)
    return Path(named) if named else Path(platformdirs.user_state_dir("rayclassify"))


@contextmanager
def announced(service_port: int, metrics_port: int) -> Iterator[Path | None]:
    """The file, for `file_sd_configs`; None where it can't be written."""
    path = state_dir() / "prometheus" / f"{service_port}.json"
    targets = [{"targets": [f"127.0.0.1:{metrics_port}"], "labels": {"job": "rayclassify"}}]
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        write_wholly(path, json.dumps(targets))
        path.chmod(0o644)  # Prometheus is seldom this user
    except OSError:
        yield None
        return
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()
