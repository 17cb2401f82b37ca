"""`rayclassify top`: what it makes of metrics, and that a terminal shows it."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from recorded_serve import details
from typer.testing import CliRunner

from deployments.cli import app
from deployments.deploying.live_view import metrics_pages
from deployments.deploying.rates import Rates, read_samples

TAGS = 'application="classify",deployment="{}",replica="{}"'


def metrics(looks: int) -> str:
    """As a node's endpoint after so many looks: 20 requests and 2 batches of 10 between two."""
    ingress, model = TAGS.format("Tokenizer", "tok1"), TAGS.format("Classifier", "cls1")
    n = 20 * looks
    lines = [
        f'ray_rayclassify_requests_total{{{ingress},outcome="ok"}} {n}',
        f'ray_rayclassify_texts_total{{{ingress},stage="postprocess"}} {n}',
        f"ray_rayclassify_queue_tokens{{{model}}} 77",
        f"ray_rayclassify_batch_texts_sum{{{model}}} {n}",
        f"ray_rayclassify_batch_texts_count{{{model}}} {n / 10}",
        f"ray_rayclassify_busy_ratio{{{model}}} 0.4",
        "ray_node_cpu_count 2",
    ]
    stage = "ray_rayclassify_stage_seconds"
    for bound, share in (("0.01", 0.5), ("0.1", 1.0), ("+Inf", 1.0)):
        lines.append(f'{stage}_bucket{{{ingress},stage="http",le="{bound}"}} {n * share}')
    lines.append(f'{stage}_sum{{{ingress},stage="http"}} {n * 0.02}')
    lines.append(f'{stage}_count{{{ingress},stage="http"}} {n}')
    return "\n".join(lines) + "\n"


def looked(*looks: int, every_s: float = 10.0) -> Rates:
    rates = Rates()
    for n, look in enumerate(looks):
        rates.look(read_samples(metrics(look)), n * every_s)
    return rates


def test_rates_are_over_the_time_between_changes() -> None:
    # Looked at every 2 s, an endpoint that changes every 10 s stands still in between.
    rates = looked(*(look for look in range(4) for _ in range(5)), every_s=2.0)
    assert rates.per_s("requests_total", "outcome") == {"ok": pytest.approx(2.0)}
    assert rates.per_s("requests_total", outcome="ok", replica="other") == {}
    assert rates.mean("batch_texts") == pytest.approx(10.0)
    assert rates.mean("stage_seconds", stage="http") == pytest.approx(0.02)
    assert rates.quantile("stage_seconds", 0.5, stage="http") == pytest.approx(0.01)
    assert rates.quantile("stage_seconds", 0.75, stage="http") == pytest.approx(0.055)
    assert rates.values("queue_tokens") == {"": 77.0}


def test_what_stands_still_gains_nothing() -> None:
    rates = looked(1, 2, 2, 2, 2, 2, 2, 2)
    assert rates.per_s("requests_total") == {"": 0.0}
    assert math.isnan(rates.quantile("stage_seconds", 0.5))
    assert math.isnan(rates.mean("batch_texts"))


def test_a_process_that_began_anew_is_no_loss_and_one_look_no_rate() -> None:
    assert looked(5).per_s("requests_total") == {"": 0.0}
    assert looked(5, 6, 1, 2).per_s("requests_total") == {"": pytest.approx(2.0)}
    rates = Rates()
    there = read_samples(metrics(1))
    gauges = {
        key: value for key, value in there.items() if key[0] in ("queue_tokens", "busy_ratio")
    }
    ingress = {key: 0.0 for key in there if key[0] == "texts_total"}
    rates.look(gauges | ingress, 0.0)
    rates.look(there, 10.0)  # its first request came meanwhile
    assert rates.per_s("requests_total") == {"": pytest.approx(2.0)}


def test_a_histogram_is_of_one_time_even_where_a_bucket_seldom_changes() -> None:
    """One request in 20 is quick; for minutes none was, and then one in the last look."""
    rates, bucket = Rates(), 'ray_rayclassify_stage_seconds_bucket{replica="tok1",le="%s"} %d\n'
    for n in range(31):
        quick = 1 if n < 30 else 2
        page = bucket % ("0.01", quick) + bucket % ("0.1", 20 * n) + bucket % ("+Inf", 20 * n)
        rates.look(read_samples(page), 10.0 * n)
    assert rates.per_s("stage_seconds_bucket", "le") == {
        "0.01": pytest.approx(1 / 40), "0.1": pytest.approx(2.0), "+Inf": pytest.approx(2.0),
    }  # fmt: skip


def test_what_stood_for_long_gains_from_its_last_change_on() -> None:
    assert looked(*[1] * 60, 2).per_s("requests_total") == {"": pytest.approx(20 / 15)}


def test_an_endpoint_that_was_missed_once_gains_no_more_than_it_did() -> None:
    rates = looked(1_000, 1_001, 1_002)
    rates.look({}, 30.0)
    rates.look(read_samples(metrics(1_004)), 40.0)
    assert rates.per_s("requests_total") == {"": pytest.approx(2.0)}
    for missed in (50.0, 60.0, 70.0, 80.0, 90.0):
        rates.look({}, missed)
    rates.look(read_samples(metrics(1_010)), 100.0)
    assert rates.per_s("requests_total") == {"": 0.0}


def test_endpoints_are_asked_at_once() -> None:
    """Each answers only when all are asked."""
    n, all_asked = 8, threading.Barrier(8)

    class Session(requests.Session):
        def get(self, url: str | bytes, **_: Any) -> requests.Response:
            all_asked.wait(30)
            answer = requests.Response()
            answer.status_code, answer._content = 200, str(url).encode()
            return answer

    class Nodes:
        def metrics(self) -> list[str]:
            return [f"http://node{i}/metrics" for i in range(n)]

    nodes: Any = Nodes()
    assert metrics_pages(nodes, Session()) == nodes.metrics()


class Cluster(ThreadingHTTPServer):
    """As Ray's dashboard, a node's endpoint and the service, at one port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.looks = 0
        self.details = details("two_running")
        told = self.details["applications"]["classify"]["deployments"]["Classifier"]["replicas"][0]
        told |= {"replica_id": "cls1", "pid": 4711, "node_id": "node1", "node_ip": "192.0.2.7"}
        self.state: dict[str, Any] | None = {
            "deployments": [{"name": "Classifier", "replicas": {"RUNNING": 2, "STARTING": 1}}],
            "ingress": {"pending_texts": 12, "ahead_s": 0.5, "refused_requests": 0},
            "classifiers": [
                {"queued_tokens": 410, "passes": 0, "read_texts": 0, "read_tokens": 0},
            ],
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str) -> Any:
        if path == "/metrics":
            self.looks += 1
            return metrics(self.looks)
        if path == "/state" and self.state is not None:
            classifier = self.state["classifiers"][0]
            classifier["passes"] += 2
            classifier["read_texts"] += 20
            classifier["read_tokens"] += 600
        workers = [{"pid": 4711, "cpuPercent": 83.0, "memoryInfo": {"rss": 512e6}}]
        gpus = [{"index": 0, "utilizationGpu": 43, "processesPids": [{"pid": 4711}]}]
        return {
            "/api/serve/applications/": self.details,
            "/api/prometheus/sd": [{"targets": [self.url.removeprefix("http://")]}],
            "/nodes/node1": {"data": {"detail": {"workers": workers, "gpus": gpus}}},
            "/info": {"model": "models/demo", "engine": "torch", "dtype": "int8", "device": "cpu"},
            "/state": self.state,
        }.get(path)


class _Handler(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        told = self.server.answer(self.path)
        self.send_response(404 if told is None else 200)
        self.end_headers()
        self.wfile.write((told if isinstance(told, str) else json.dumps(told)).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def printed(*args: str) -> str:
    result = CliRunner(env={"COLUMNS": "140"}).invoke(app, ["top", *args, "--every-s", "0.2"])
    assert result.exit_code == 0, result.output
    return result.stdout


def row(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_a_cluster_is_shown_with_each_replicas_node_cpu_and_gpu(cluster: Cluster) -> None:
    shown = printed("--address", cluster.url)
    assert "classify: RUNNING" in shown
    assert row(shown, "Classifier") == (
        ["Classifier", "cls1", "RUNNING", "192.0.2.7", "40%", "83%", "512", "MB", "0:", "43", "%"]
    )
    assert row(shown, "http")[2:] == ["20", "10", "98.2"]
    assert re.search(r"requests ok +\d", shown)
    assert re.search(r"tokens +77", shown)


def test_of_a_url_it_shows_what_the_service_says_of_itself(cluster: Cluster) -> None:
    shown = printed(cluster.url)
    assert "models/demo, torch int8 cpu" in shown
    assert "replicas: Classifier 2 RUNNING, Classifier 1 STARTING" in shown
    assert re.search(r"texts +10 +pending texts +12", shown)
    cluster.state = None
    assert "this service has no /state" in printed(cluster.url)


def test_nobody_there_is_one_line_and_3() -> None:
    result = CliRunner().invoke(app, ["top", "http://127.0.0.1:9", "--once"])
    assert (result.exit_code, len(result.stderr.strip().splitlines())) == (3, 1)


def test_on_a_terminal_it_goes_on_until_ctrl_c(cluster: Cluster) -> None:
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "deployments.cli", "top", "--address", cluster.url]
    with subprocess.Popen(
        [*command, "--every-s", "0.2"],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
    ) as process:  # fmt: skip
        os.close(terminal)
        # A process that does not end must not hold the test.
        late = threading.Timer(60, process.kill)
        late.start()
        seen = b""
        while cluster.looks < 4 or b"cls1" not in seen:
            seen += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                seen += os.read(ours, 65_536)
            except OSError:  # closed
                break
        assert process.wait() == 0
        late.cancel()
    os.close(ours)
    assert seen.startswith(b"\x1b[?1049h")  # the screen of before comes back
    assert b"\x1b[?1049l" in seen
