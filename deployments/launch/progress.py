"""How far the deployment has come, from the REST API of Ray's dashboard."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import requests

from deployments.launch.token_file import read_token

STARTING_RAY = "starting Ray"
DEPLOYING = "deploying"
LOADING = "loading the model (a first start also measures engines)"
STARTING_HTTP = "waiting for the HTTP port"


@dataclass(frozen=True, slots=True)
class Progress:
    """phase: what is going on; failure: why the deployment has failed for good, if it has."""

    phase: str
    failure: str | None = None


def local_session() -> requests.Session:
    """A session that goes straight to this machine, whatever HTTP_PROXY says."""
    session = requests.Session()
    session.trust_env = False
    return session


def read_progress(session: requests.Session, dashboard: str, app: str) -> Progress:
    """Asks the dashboard; where it has no answer yet, the deployment is only beginning."""
    try:
        answer = session.get(
            f"{dashboard}/api/serve/applications/",
            headers={"Authorization": f"Bearer {read_token(os.environ)}"},
            timeout=2,
        )
        details: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError):
        return Progress(DEPLOYING)
    return interpret((details.get("applications") or {}).get(app) or {})


def interpret(app: dict[str, Any]) -> Progress:
    """One application of the dashboard's answer, in our words."""
    deployments: dict[str, Any] = app.get("deployments") or {}
    if app.get("status") == "DEPLOY_FAILED":
        messages = [app.get("message"), *(d.get("message") for d in deployments.values())]
        return Progress(DEPLOYING, "\n".join(str(text) for text in messages if text))
    if app.get("status") == "RUNNING":
        return Progress(STARTING_HTTP)
    waiting = [name for name, d in deployments.items() if d.get("status") != "HEALTHY"]
    if "Classifier" in waiting:
        return Progress(LOADING)
    if waiting:
        return Progress(f"starting {', '.join(sorted(waiting))}")
    return Progress(DEPLOYING)
