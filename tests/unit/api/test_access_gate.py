"""The gate: who gets in, who is told what, and that nothing is read or classified before."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from stand_in import LIMITS, Client, LengthClassifier

from deployments.access.keys import hash_of, new_token
from deployments.http.app import create_app
from deployments.http.openapi import openapi_document
from deployments.pipeline.observer import Observer
from deployments.privacy.audit import AuditLog
from deployments.settings import AccessSettings, AuditSettings

TOKENS = {name: new_token() for name in ("shop", "explainer", "admin", "old", "slow", "poor")}
KEYS = {
    "shop": {},
    "explainer": {"scopes": ["explain"]},
    "admin": {"scopes": ["admin"]},
    "old": {"expires": "2020-01-01"},
    "slow": {"texts_per_s": 0.001, "burst_texts": 3},
    "poor": {"texts_per_day": 4},
}


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    entries = [
        {"id": name, "sha256": hash_of(TOKENS[name]), **extra} for name, extra in KEYS.items()
    ]
    path.write_text(json.dumps({"keys": entries}))
    return path


def guarded(service: LengthClassifier, keys_file: Path, root_path: str = "", **access: Any) -> Any:
    settings = AccessSettings(keys_file=str(keys_file), **access)
    return Client(create_app(service, LIMITS, settings), root_path)


@pytest.fixture
def gate(service: LengthClassifier, keys_file: Path) -> Client:
    return guarded(service, keys_file)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}"}


def test_a_valid_key_is_let_in_by_either_header(gate):
    assert gate.classify({"text": "a"}, bearer("shop")).status_code == 200
    assert gate.classify({"text": "a"}, {"x-api-key": TOKENS["shop"]}).status_code == 200
    lower = {"authorization": f"bearer  {TOKENS['shop']} "}
    assert gate.classify({"text": "a"}, lower).status_code == 200
    both = {"authorization": "Basic dXNlcjpwdw==", "x-api-key": TOKENS["shop"]}
    assert gate.classify({"text": "a"}, both).status_code == 200


TOKEN = TOKENS["shop"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN.swapcase()}"},
        {"authorization": f"Bearer {hash_of(TOKEN)}"},
        {"authorization": "Bearer " + "x" * 60_000},
        {"authorization": f"Bearer {'a.b.c'}"},
        {"x-api-key": ""},
        {"x-api-key": f"Bearer {TOKEN}"},
        {"cookie": f"token={TOKEN}"},
    ],
)
def test_anything_else_is_told_401_and_reaches_nobody(gate, service, refused, headers):
    response = gate.classify({"text": "a"}, headers)
    message = refused(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in message
    assert service.seen == []


def test_the_audit_log_names_the_key_and_nobody_who_was_turned_away(service, keys_file, tmp_path):
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef")
    where = AuditSettings(directory=str(tmp_path / "audit"), secret_file=str(tmp_path / "secret"))
    log = AuditLog(where)
    client = Client(create_app(service, LIMITS, AccessSettings(keys_file=str(keys_file)), log))
    asked = [{}, bearer("old"), bearer("explainer"), bearer("shop"), {"x-api-key": TOKENS["admin"]}]
    statuses = [client.classify({"text": "a"}, headers).status_code for headers in asked]
    log.close()
    assert statuses == [401, 401, 403, 200, 200]
    written = log.path.read_text()
    assert [json.loads(line)["key_id"] for line in written.splitlines()] == [
        "key:shop",
        "key:admin",
    ]
    assert not any(token in written for token in TOKENS.values())


def test_a_token_in_the_query_is_no_key(gate, refused):
    refused(
        gate.request("POST", f"/classify?key={TOKEN}&access_token={TOKEN}"), 401, "unauthorized"
    )


def test_an_expired_key_is_told_so(gate, refused):
    message = refused(gate.classify({"text": "a"}, bearer("old")), 401, "unauthorized")
    assert "expired on 2020-01-01" in message


def test_a_key_without_the_scope_is_told_403(gate, service, refused):
    message = refused(gate.classify({"text": "a"}, bearer("explainer")), 403, "forbidden")
    assert "no scope classify; it has explain" in message
    assert service.seen == []
    assert gate.classify({"text": "a"}, bearer("admin")).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/docs", "/openapi.json"])
def test_probes_and_documentation_need_no_key(gate, path):
    assert gate.get(path).status_code == 200


def test_all_callers_load_is_told_to_none_but_admins(gate, refused):
    assert gate.get("/state", headers=bearer("admin")).status_code == 200
    message = refused(gate.get("/state", headers=bearer("shop")), 403, "forbidden")
    assert "no scope admin" in message
    refused(gate.get("/state"), 401, "unauthorized")


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/assets/docs.js", "/"])
def test_the_documentation_can_be_closed(service, keys_file, refused, path):
    gate = guarded(service, keys_file, docs_public=False)
    refused(gate.get(path), 401, "unauthorized")
    assert gate.get(path, headers=bearer("explainer")).status_code == 200
    assert gate.get("/health").status_code == 200


def test_info_needs_a_key_of_any_scope(gate, refused):
    refused(gate.get("/info"), 401, "unauthorized")
    assert gate.get("/info", headers=bearer("explainer")).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/classify/", "//classify", "/Classify", "/healthz", "/health/", "/health/../info", "//health",
     "/ready/x", "/info/", "/nowhere", "/docs/", "/docsx", "/health\x00", "/.", "", "health"],
)  # fmt: skip
def test_what_only_looks_like_an_open_path_is_shut(gate, path):
    assert status_of(gate.app, path) == 401


def status_of(app: Any, path: str, root_path: str = "") -> int:
    """The status for a path as the server hands it on, which clients would tidy up."""
    scope = {
        "type": "http", "method": "POST", "path": path, "root_path": root_path, "headers": [],
    }  # fmt: skip
    sent = []

    async def receive() -> dict:
        pytest.fail("the body was asked for")

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


def test_under_a_prefix_the_same_paths_are_open(service, keys_file, refused):
    gate = guarded(service, keys_file, "/nlp")
    assert gate.get("/health").status_code == 200
    refused(gate.get("/info"), 401, "unauthorized")
    refused(gate.classify({"text": "a"}), 401, "unauthorized")
    assert gate.classify({"text": "a"}, bearer("shop")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_other_methods_are_shut_too(gate, method):
    assert gate.request(method, "/classify").status_code == 401


def test_a_request_is_refused_before_its_body_is_read(gate):
    assert status_of(gate.app, "/classify") == 401
    assert status_of(gate.app, "/nlp/classify", "/nlp") == 401


def test_texts_count_and_not_requests(gate, refused):
    assert gate.classify({"text": ["a", "b", "c"]}, bearer("slow")).status_code == 200
    response = gate.classify({"text": "a"}, bearer("slow"))
    assert "0.001 texts a second" in refused(response, 429, "rate_limited")
    assert 990 <= int(response.headers["retry-after"]) <= 1_000
    assert gate.classify({"text": "a"}, bearer("shop")).status_code == 200


def test_the_quota_of_a_day_ends(gate, refused):
    for _ in range(2):
        assert gate.classify({"text": ["a", "b"]}, bearer("poor")).status_code == 200
    response = gate.classify({"text": "a"}, bearer("poor"))
    refused(response, 429, "quota_exceeded")
    assert 1 <= int(response.headers["retry-after"]) <= 86_400


def test_an_edit_of_the_file_gives_nobody_its_quota_back(service, keys_file, refused, monkeypatch):
    monkeypatch.setattr("deployments.access.watched_file.CHECK_EVERY_S", 0.0)
    gate = guarded(service, keys_file)
    assert gate.classify({"text": ["a", "b", "c", "d"]}, bearer("poor")).status_code == 200
    document = json.loads(keys_file.read_text())
    document["keys"].pop(0)  # another's key
    keys_file.write_text(json.dumps(document))
    refused(gate.classify({"text": "a"}, bearer("shop")), 401, "unauthorized")
    refused(gate.classify({"text": "a"}, bearer("poor")), 429, "quota_exceeded")
    document["keys"][-1]["texts_per_day"] = 10
    keys_file.write_text(json.dumps(document))
    assert gate.classify({"text": "a"}, bearer("poor")).status_code == 200


def test_limits_of_the_service_hold_where_a_key_has_none(service, keys_file, refused):
    gate = guarded(service, keys_file, texts_per_day=2)
    assert gate.classify({"text": ["a", "b"]}, bearer("shop")).status_code == 200
    refused(gate.classify({"text": "a"}, bearer("shop")), 429, "quota_exceeded")
    assert gate.classify({"text": ["a", "b", "c"]}, bearer("poor")).status_code == 200


def test_anonymous_callers_may_be_let_in_but_not_with_a_wrong_key(service, keys_file, refused):
    gate = guarded(service, keys_file, allow_anonymous=True, texts_per_day=2)
    assert gate.classify({"text": "a"}).status_code == 200
    refused(gate.classify({"text": "a"}, {"x-api-key": "wrong"}), 401, "unauthorized")
    assert gate.classify({"text": "a"}).status_code == 200
    refused(gate.classify({"text": "a"}), 429, "quota_exceeded")


def test_the_application_is_told_who_asks(keys_file):
    from deployments.http.access_gate import CLIENT, AccessGate

    seen = []

    async def app(scope: dict, receive: Any, send: Any) -> None:
        seen.append(scope[CLIENT])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    access = AccessSettings(keys_file=str(keys_file), allow_anonymous=True)
    client = Client(AccessGate(app, access, {}))
    client.get("/info")
    client.get("/info", headers=bearer("shop"))
    assert seen == ["anonymous", "key:shop"]


def test_a_browser_elsewhere_is_allowed_only_where_it_is_named(service, keys_file):
    page = {"origin": "https://shop.example.com"}
    preflight = page | {"access-control-request-method": "POST"}
    shut = guarded(service, keys_file)
    assert "access-control-allow-origin" not in shut.classify({"text": "a"}, page).headers
    assert shut.request("OPTIONS", "/classify", headers=preflight).status_code == 401

    named = guarded(service, keys_file, cors_origins=["https://shop.example.com"])
    asked = named.request("OPTIONS", "/classify", headers=preflight)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "https://shop.example.com"
    assert "access-control-allow-credentials" not in asked.headers
    answered = named.classify({"text": "a"}, page | bearer("shop"))
    assert answered.headers["access-control-allow-origin"] == "https://shop.example.com"
    other = named.classify({"text": "a"}, bearer("shop") | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_openapi_says_how_to_show_a_key(gate, client):
    document = gate.get("/openapi.json").json()
    validate(document)
    assert document["components"]["securitySchemes"].keys() == {"Bearer", "Key"}
    operation = document["paths"]["/classify"]["post"]
    assert operation["security"] == [{"Bearer": []}, {"Key": []}]
    assert {"401", "403"} <= operation["responses"].keys()
    assert "security" not in document["paths"]["/health"]["get"]
    open_to_all = client.get("/openapi.json").json()
    assert "securitySchemes" not in open_to_all["components"]
    assert "401" not in open_to_all["paths"]["/classify"]["post"]["responses"]


def test_without_keys_there_is_no_gate(service):
    app = create_app(service, LIMITS, AccessSettings())
    assert type(app) is type(create_app(service, LIMITS))
    assert openapi_document(LIMITS, AccessSettings()) == openapi_document(LIMITS)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/ready", 200), ("/info", 200), ("/", 200), ("/openapi.json", 200),
     ("/nowhere", 404), ("/classify", 405)],
)  # fmt: skip
def test_answers_are_neither_guessed_at_nor_kept(client, path, status):
    response = client.get(path)
    assert response.status_code == status
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"


def test_answers_and_errors_of_classify_are_not_kept_either(client):
    for body in ({"text": "a"}, {"text": ["a", ""]}, {"text": ""}, {"no": 1}):
        headers = client.classify(body).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_page_and_its_assets_are_not_guessed_at(client):
    for path in ("/docs", "/docs/assets/docs.js", "/docs/assets/docs.css"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/classify/", "/info/", "/health/"])
def test_nobody_is_sent_elsewhere_with_text_and_key(client, refused, path):
    answer = client.request("POST", path, content=b'{"text": "a"}')
    refused(answer, 404, "not_found")


def test_who_is_kept_out_is_counted_by_the_dialect_that_was_asked(service, keys_file):
    class Heard(Observer):
        def __init__(self) -> None:
            self.told: list[tuple[str, ...]] = []

        def request(self, dialect, outcome):
            self.told.append((dialect, outcome))

        def refused(self, reason, n_texts):
            self.told.append((reason,))

    heard = Heard()
    client = Client(
        create_app(service, LIMITS, AccessSettings(keys_file=str(keys_file)), observer=heard)
    )
    assert client.classify({"text": "a"}).status_code == 401
    assert client.request("POST", "/predict", headers=bearer("explainer")).status_code == 403
    assert client.request("POST", "/made-up/path").status_code == 401
    assert client.request("POST", "/classify/stream").status_code == 401
    assert heard.told == [
        ("unauthorized",),
        ("classify", "client_error"),
        ("forbidden",),
        ("tei", "client_error"),
        ("unauthorized",),
        ("unauthorized",),
        ("stream", "client_error"),
    ]
