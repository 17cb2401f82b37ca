"""Errors: one shape, a request id, and not a word about our insides."""

from __future__ import annotations

import logging
import re

import pytest

from deployments.http.responses import request_id_of
from deployments.pipeline.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError

CONFIDENTIAL = "病历: the secret text at 0x7f3a"


def test_the_request_id_comes_back(client):
    response = client.classify({}, headers={"x-request-id": "order 66/a"})
    assert response.json()["error"]["request_id"] == "order 66/a"


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"tab\there", b"\xe4", "很".encode(), b"\x7f"])
def test_an_unfit_request_id_is_replaced(value):
    made = request_id_of({"type": "http", "headers": [(b"x-request-id", value)]})
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_a_request_id_of_the_greatest_length_is_kept():
    scope = {"type": "http", "headers": [(b"x-request-id", b"x" * 128)]}
    assert request_id_of(scope) == "x" * 128


def test_each_request_without_an_id_gets_its_own(client):
    first, second = (client.classify({}).json()["error"]["request_id"] for _ in range(2))
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


def test_serve_sets_the_header_so_we_do_not(client):
    for response in (client.classify({"text": "a"}), client.classify({}), client.get("/health")):
        assert "x-request-id" not in response.headers


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Overloaded("2000 texts are waiting. Try again in 2 s.", 1.2), 429, "2"),
        (Overloaded("Full.", 0.0), 429, "1"),
        (NotReady("The model is loading."), 503, "1"),
        (DeadlineExceeded("The request took longer than 30 s."), 408, None),
        (ServiceError("Something."), 500, None),
    ],
)
def test_errors_of_the_service(client, service, refused, error, status, retry_after):
    service.failure = error
    for text in ("a", ["a", "b"]):
        response = client.classify({"text": text})
        assert refused(response, status, error.code) == error.message
        assert response.headers.get("retry-after") == retry_after


def test_the_unexpected_is_logged_without_words(client, service, refused, caplog):
    service.failure = RuntimeError(CONFIDENTIAL)
    with caplog.at_level(logging.DEBUG):
        response = client.classify({"text": CONFIDENTIAL}, headers={"x-request-id": "r7"})
    message = refused(response, 500, "internal_error")
    assert message == ServiceError().message
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    logged = logging.Formatter().format(record)
    assert re.fullmatch(
        r"request r7: unexpected RuntimeError at http/classify_route\.py:\d+, in \S+", logged
    )
    assert CONFIDENTIAL not in caplog.text + response.text


def test_the_unexpected_on_other_routes_is_treated_alike(client, service, refused, caplog):
    async def broken(certificate: bool = False) -> dict:
        raise ValueError(CONFIDENTIAL)

    service.info = broken
    refused(client.get("/info"), 500, "internal_error")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "unexpected ValueError at http/status_routes.py" in record.getMessage()
    assert record.exc_info is None
    assert CONFIDENTIAL not in caplog.text


def test_wrong_count_of_answers_is_an_error_of_ours(client, service, refused):
    async def too_few(inputs, timeout_s=None):
        return []

    service.classify_inputs = too_few
    refused(client.classify({"text": ["a"]}), 500, "internal_error")
    refused(client.classify({"text": "a"}), 500, "internal_error")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/classify", {"POST"}),
        ("PUT", "/classify", {"POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("DELETE", "/docs", {"GET", "HEAD"}),
        ("POST", "/docs/assets/docs.css", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_told_the_right_one(client, refused, method, path, allow):
    response = client.request(method, path)
    message = refused(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == allow
    assert method in message
    assert all(right in message for right in allow)


@pytest.mark.parametrize("path", ["/nope", "/docs/assets/nope.js", "/docs/assets/../app.py"])
def test_an_unknown_path_points_to_the_documentation(client, refused, path):
    assert "/docs" in refused(client.get(path), 404, "not_found")
