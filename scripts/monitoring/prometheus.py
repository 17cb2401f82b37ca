"""A running Prometheus, asked over its HTTP API."""

from __future__ import annotations

import math
from typing import Any

import requests


class Prometheus:
    """url: of the server, as http://127.0.0.1:9090."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def values(self, query: str) -> list[float]:
        """What a query gives now, one for each series; without those that are no numbers.

        Raises:
            requests.HTTPError: it is no query.
        """
        found = self._ask("query", query=query)["result"]
        values = [float(one["value"][1]) for one in found]
        return [value for value in values if math.isfinite(value)]

    def series(self, query: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """`metric` and `values` of each series over a time, in seconds since 1970."""
        asked = {"query": query, "start": start, "end": end, "step": step_s}
        found: list[dict[str, Any]] = self._ask("query_range", **asked)["result"]
        return found

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        alerts = self._ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def _ask(self, what: str, **params: Any) -> Any:
        answer = self._session.get(f"{self._url}/api/v1/{what}", params=params, timeout=30)
        answer.raise_for_status()
        return answer.json()["data"]
