"""The REST API of Ray's dashboard, as far as deploying needs it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from deployments.deploying.clusters import Cluster

_CONNECT_S = 3.0
_READ_S = 30.0
METRICS_TARGETS = "/api/prometheus/sd"
"""As Prometheus' `http_sd_configs` takes it."""
_START_S = 180.0  # where no Serve runs yet, it is started while the caller waits
_TRIES = 4
_PAUSE_S = 1.0


class DashboardError(Exception):
    """It does not answer, or not as asked. The message says what to do."""


class ConfigRefused(DashboardError):
    """Serve looked at the config and would not have it; nothing has changed."""


class Dashboard:
    """The dashboard of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._session = requests.Session()
        # A proxy of the network's is for what lies beyond it.
        self._session.trust_env = not cluster.is_local
        # As `auth`, or a .netrc would take the header's place.
        self._session.auth = self._authorize

    def session_name(self) -> str:
        """Which run of the cluster this is: it changes when Ray is started anew."""
        return str(self._get("/api/version").get("session_name", ""))

    def serve_details(self) -> dict[str, Any]:
        """Everything that Serve tells of itself."""
        return self._get("/api/serve/applications/")

    def nodes(self) -> dict[str, Any]:
        """`summary` and `nodeLogicalResources` of all nodes."""
        told: dict[str, Any] = self._get("/nodes?view=summary").get("data") or {}
        return told

    def metrics(self) -> list[str]:
        """URLs where Prometheus finds the metrics of the nodes, of the dashboard and of Ray's
        autoscaler; none where it does not say."""
        answer = self._request("GET", METRICS_TARGETS)
        try:
            groups = answer.json() if answer.ok else []
            return [f"http://{target}/metrics" for one in groups for target in one["targets"]]
        except (ValueError, KeyError, TypeError):
            return []

    def node(self, node_id: str) -> dict[str, Any]:
        """Processes, GPUs and use of one node; empty where its agent does not say."""
        answer = self._request("GET", f"/nodes/{node_id}")
        try:
            told: dict[str, Any] = answer.json()["data"]["detail"] if answer.ok else {}
        except (ValueError, KeyError, TypeError):
            return {}
        return told

    def log_file(self, node_id: str, name: str) -> str:
        """A file below Ray's log directory on a node; empty where there is none.

        On this machine it is read here: of several Rays on one machine only the first has the agent
        that Ray's dashboard would ask.
        """
        here = Path(self.cluster.log_dir, name)
        if self.cluster.log_dir and here.is_file():
            return here.read_text(encoding="utf-8", errors="replace")
        query = {"node_id": node_id, "filename": name, "lines": "-1"}
        answer = self._request("GET", f"/api/v0/logs/file?{urlencode(query)}")
        return answer.text if answer.ok else ""

    def put(self, document: dict[str, Any]) -> None:
        """Has Serve aim at `document`, and at nothing that was deployed by config beside it.

        Raises:
            ConfigRefused: Serve would not have it.
            DashboardError: as all calls.
        """
        answer = self._request("PUT", "/api/serve/applications/", json=document, read_s=_START_S)
        if answer.status_code == 400:
            lines = [line for line in answer.text.splitlines() if line.strip()]
            raise ConfigRefused(f"Serve refused the config: {' '.join(lines[-3:])[:600]}")
        self._check(answer)

    def _get(self, path: str) -> dict[str, Any]:
        for left in reversed(range(_TRIES)):
            try:
                answer = self._request("GET", path)
                if answer.status_code < 500 or not left:
                    break
            except DashboardError:
                if not left:
                    raise
            time.sleep(_PAUSE_S)
        self._check(answer)
        try:
            told: dict[str, Any] = answer.json()
        except ValueError:
            raise self._no_dashboard() from None
        return told

    def _request(
        self, method: str, path: str, json: Any = None, read_s: float = _READ_S
    ) -> requests.Response:
        url = self.cluster.url
        try:
            return self._session.request(
                method, url + path, json=json, timeout=(_CONNECT_S, read_s), allow_redirects=False
            )
        except requests.ReadTimeout:
            raise DashboardError(
                f"Ray's dashboard at {url} took the connection and did not answer within "
                f"{read_s:g} s. See whether the head node is overloaded."
            ) from None
        except requests.RequestException as exc:
            raise DashboardError(
                f"Ray's dashboard can't be reached at {url} ({type(exc).__name__}; found by "
                f"{self.cluster.how}). Name it with --address http://HEAD:8265; from elsewhere "
                "than the head node it takes a tunnel, as the dashboard listens on 127.0.0.1."
            ) from None

    def _check(self, answer: requests.Response) -> None:
        url = self.cluster.url
        if answer.status_code in (401, 403):
            had = "the one found here is not its" if self.cluster.token else "none was found here"
            raise DashboardError(
                f"the cluster at {url} wants a token, and {had}. Set RAY_AUTH_TOKEN, or "
                "RAY_AUTH_TOKEN_PATH to the auth_token that its head node has under ~/.ray."
            )
        if answer.status_code >= 500:
            lines = answer.text.strip().splitlines() or [""]
            raise DashboardError(
                f"Ray's dashboard at {url} answered {answer.status_code}: {lines[0][:200]}"
            )
        if not answer.ok or answer.is_redirect:
            raise self._no_dashboard()

    def _no_dashboard(self) -> DashboardError:
        return DashboardError(
            f"what answers at {self.cluster.url} is no dashboard of Ray 2.60. Check --address."
        )

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.cluster.token:
            request.headers["Authorization"] = f"Bearer {self.cluster.token}"
        return request
