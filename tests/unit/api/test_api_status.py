"""Probes, /info, / and /docs."""

from __future__ import annotations

import pytest
from stand_in import LIMITS, Client

from deployments.http.app import create_app
from deployments.http.docs import STATIC
from deployments.settings import AccessSettings


def test_health_says_that_the_process_lives(client, service):
    service.is_ready = False
    response = client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_ready_waits_for_the_model(client, service, refused):
    assert client.get("/ready").json() == {"status": "ready"}
    service.is_ready = False
    response = client.get("/ready")
    refused(response, 503, "not_ready")
    assert response.headers["retry-after"] == "3"


def test_info_is_what_the_service_says(client):
    assert client.get("/info").json() == {"model": "length", "labels": ["long", "short"]}


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/info", "/state", "/openapi.json", "/docs"]
)
def test_head_has_the_headers_of_get(client, path):
    head, get = client.request("HEAD", path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-length"] == get.headers["content-length"]


def test_programs_get_an_index_and_people_the_playground(client, prefixed):
    assert client.get("/").json()["docs"] == "/docs"
    assert prefixed.get("/").json()["classify"] == "POST /nlp/classify"
    browser = prefixed.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert browser.headers["content-type"] == "text/html; charset=utf-8"
    assert browser.headers["vary"] == "Accept"
    without_slash = prefixed.get("")
    assert (without_slash.status_code, without_slash.headers["location"]) == (307, "/nlp/")


def test_the_index_names_metrics_elsewhere_but_not_where_keys_are_asked_for(service, tmp_path):
    async def addresses():
        return ["http://10.0.0.1:8080/metrics"]

    client = Client(create_app(service, LIMITS, metrics=addresses))
    assert client.get("/").json()["metrics"] == ["http://10.0.0.1:8080/metrics"]
    assert client.get("/metrics").status_code == 404
    (tmp_path / "keys.json").write_text('{"keys": []}')
    access = AccessSettings(keys_file=str(tmp_path / "keys.json"), docs_public=True)
    client = Client(create_app(service, LIMITS, access, metrics=addresses))
    assert "metrics" not in client.get("/").json()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_forbids_everything_from_elsewhere(client, path):
    response = client.get(path, headers={"accept": "text/html"})
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in policy + response.text


def test_assets_are_packaged_with_their_licences(client):
    for name in ("docs.css", "docs.js", "swagger-ui/swagger-ui-bundle.js"):
        assert client.get(f"/docs/assets/{name}").status_code == 200
    assert {"LICENSE", "NOTICE"} <= {path.name for path in (STATIC / "swagger-ui").iterdir()}
