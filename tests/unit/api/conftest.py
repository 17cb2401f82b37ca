"""Fixtures for the HTTP edge over real ASGI."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from stand_in import LIMITS, Client, LengthClassifier

from deployments.http.app import create_app
from deployments.settings import LimitSettings


@pytest.fixture
def limits() -> LimitSettings:
    return LIMITS


@pytest.fixture
def service() -> LengthClassifier:
    return LengthClassifier()


@pytest.fixture
def client(service: LengthClassifier, limits: LimitSettings) -> Client:
    return Client(create_app(service, limits))


@pytest.fixture
def prefixed(service: LengthClassifier, limits: LimitSettings) -> Client:
    """The application under /nlp, as Serve mounts it for `route_prefix: /nlp`."""
    return Client(create_app(service, limits), root_path="/nlp")


@pytest.fixture
def refused() -> Callable[..., str]:
    """Checks an error answer's shape, status and code; returns its message."""

    def check(response: httpx.Response, status: int, code: str) -> str:
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.json().keys() == {"error"}
        assert response.json()["error"].keys() == {"code", "message", "request_id"}
        assert response.headers["content-type"] == "application/json"
        return response.json()["error"]["message"]

    return check
