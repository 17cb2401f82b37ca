"""What our YAML adds to HAProxy's configuration, in a real one that Serve's own code writes."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deployments.config.check import load_config
from deployments.launch.ports import next_port

ROOT = Path(__file__).parents[2]
ENV = load_config(ROOT / "serve_config.yaml")["controller_options"]["runtime_env"]["env_vars"]
LINES = ENV["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"]
PATIENCE_S = 20.0


class _Hasty:
    """A replica that dies of every request: reads it, then closes without an answer."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of an HAProxy as Serve configures it under our YAML, with less time for heads; below /dead no
    replica is there, below /hasty it dies."""
    haproxy = pytest.importorskip("ray.serve._private.haproxy")
    from ray.serve.config import HTTPOptions

    try:
        binary = haproxy.get_haproxy_binary()
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no HAProxy that runs here")
    files = tmp_path_factory.mktemp("haproxy")
    hasty, front = _Hasty(), next_port()
    config = haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=front),
        balance_algorithm=LINES.replace("http-request 10s", "http-request 1s"),
        log_target=ENV["RAY_SERVE_HAPROXY_LOG_TARGET"],
        retry_on=ENV["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=int(ENV["RAY_SERVE_HAPROXY_RETRIES"]),
        timeout_client_s=int(ENV["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]),
        stats_port=next_port(),
        metrics_port=next_port(),
        socket_path=str(files / "admin.sock"),
        server_state_base=str(files),
        server_state_file=str(files / "state"),
        metrics_socket_path=str(files / "metrics.sock"),
        enable_hap_optimization=True,
        has_received_routes=True,
        has_received_servers=True,
    )
    ports = {"dead": next_port(), "hasty": hasty.port}
    backends = {
        name: haproxy.BackendConfig(
            name=name,
            path_prefix=f"/{name}",
            app_name=name,
            servers=[haproxy.ServerConfig(name="one", host="127.0.0.1", port=number)],
        )
        for name, number in ports.items()
    }
    written = haproxy.HAProxyApi(config, backends, str(files / "haproxy.cfg"))
    written._generate_config_file_internal()
    with subprocess.Popen([binary, "-db", "-f", str(files / "haproxy.cfg")]) as process:
        try:
            _wait_for(front)
            yield front
        finally:
            process.kill()
            hasty.socket.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("HAProxy did not start")


@pytest.mark.parametrize(("path", "status"), [("dead", 503), ("hasty", 502)])
def test_its_own_errors_are_json_and_may_be_tried_again(port: int, path: str, status: int) -> None:
    answer = requests.post(
        f"http://127.0.0.1:{port}/{path}/classify", json={"text": "好"}, timeout=30
    )
    # Its health check may have found out first that nobody is there.
    assert answer.status_code in {status, 503}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "1"
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "request_id"}
    assert error["code"] == "not_ready"


def test_a_head_that_trickles_is_ended(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
        client.settimeout(0.1)
        client.sendall(b"POST /dead HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        deadline, answer = time.monotonic() + PATIENCE_S, None
        while answer is None and time.monotonic() < deadline:
            try:
                client.sendall(b"a")
                answer = client.recv(4096)
            except TimeoutError:
                continue
            except OSError:  # closed while we wrote
                answer = b""
        assert answer is not None, "still open"
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408")


def test_a_connection_is_kept_between_requests(port: int) -> None:
    """The time for a head does not run while a client has nothing to ask."""
    ask = b"GET /-/routes HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
        client.sendall(ask)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        client.settimeout(2.0)
        with pytest.raises(TimeoutError):  # neither closed nor answered
            client.recv(1)
        client.settimeout(PATIENCE_S)
        client.sendall(ask)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")


def test_messages_are_json() -> None:
    """HAProxy takes what stands between the quotes as it is."""
    errors = [line.split("'")[1] for line in LINES.splitlines() if line.startswith("http-error")]
    assert [json.loads(error)["error"]["code"] for error in errors] == [
        "not_ready",
        "not_ready",
        "deadline_exceeded",
    ]
