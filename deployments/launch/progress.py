"""How far a start has come: what `serve run` prints, and what Ray's dashboard says."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path
from typing import Any

import requests

from deployments.config.ray_inside import DASHBOARD_TOLD
from deployments.launch.token_file import read_token
from deployments.pipeline.causes import causes
from deployments.settings import PARTS

STARTING_RAY = "starting Ray"
DEPLOYING = "deploying"
LOADING = "loading the model (a first start also measures engines)"
STARTING_HTTP = "waiting for the HTTP port"

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DASHBOARD = re.compile(DASHBOARD_TOLD)


class ChildLog:
    """The growing output of `serve run`. dashboard: its address, once it was told."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(encoding="utf-8", errors="replace")
        self._partial = ""
        self._last: deque[str] = deque(maxlen=200)
        self.dashboard: str | None = None

    def read(self) -> list[str]:
        """The complete lines written since the last call, without colours."""
        *lines, self._partial = _ANSI.sub("", self._partial + self._file.read()).split("\n")
        self._last.extend(line for line in lines if line.strip())
        for found in filter(None, map(_DASHBOARD.search, lines)):
            self.dashboard = found.group(1)
        return lines

    def cause(self) -> list[str]:
        """The lines that say why it failed: the errors of tracebacks, else the last lines."""
        return causes(list(self._last))

    def close(self) -> None:
        self._file.close()


class StartFailed(Exception):
    """It did not come up. `lines` say why, as far as the child or Serve told."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


def local_session() -> requests.Session:
    """A session that goes straight to this machine, whatever HTTP_PROXY says."""
    session = requests.Session()
    session.trust_env = False
    return session


def ask_phase(session: requests.Session, dashboard: str, app: str) -> str:
    """What is going on; where the dashboard has no answer yet, the deployment is only beginning.

    Raises:
        StartFailed: the deployment has failed for good.
    """
    token = {"Authorization": f"Bearer {read_token(os.environ)}"}
    try:
        answer = session.get(f"{dashboard}/api/serve/applications/", headers=token, timeout=2)
        details: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError):
        return DEPLOYING
    return phase_of((details.get("applications") or {}).get(app) or {})


def phase_of(app: dict[str, Any]) -> str:
    """One application of the dashboard's answer, in our words; raises as `ask_phase`."""
    deployments: dict[str, Any] = app.get("deployments") or {}
    if app.get("status") == "DEPLOY_FAILED":
        told = [app.get("message"), *(d.get("message") for d in deployments.values())]
        lines = "\n".join(str(message) for message in told if message).splitlines()
        raise StartFailed("the deployment failed", causes(lines))
    if app.get("status") == "RUNNING":
        return STARTING_HTTP
    waiting = sorted(name for name, d in deployments.items() if d.get("status") != "HEALTHY")
    if not {"Classifier", *PARTS.values()}.isdisjoint(waiting):
        return LOADING
    return f"starting {', '.join(waiting)}" if waiting else DEPLOYING
