"""The peers of the benchmark: command lines, bodies, labels, and servers that start and stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from deployments.bench.client import Endpoint
from scripts.bench.peers import PEERS, Peer, PeerUnavailable, process, running
from scripts.bench.peers.environment import install, pip_command
from scripts.bench.peers.peer import Run
from scripts.bench.peers.process import reason

TEXT = '物流很快 "好" \\ 😀'

# Answers a body with its "text" as the label, 503 the first two times. Starts a process in a
# session of its own, as servers with workers do, and writes its id to a file.
STAND_IN = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                          start_new_session=True)
open("worker.pid", "w").write(str(worker.pid))
if os.environ.get("STUBBORN"):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(BaseHTTPRequestHandler):
    asked = 0
    def do_POST(self):
        Handler.asked += 1
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({os.environ.get("FIELD", "label"): question["text"]}).encode()
        self.send_response(503 if Handler.asked <= 2 else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *args):
        pass
HTTPServer(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
"""
DIES = "print('loading'); raise ValueError('no model in ' + '/srv/models/bert/config.json')"


def stand_in(code: str = STAND_IN, **env: str) -> Peer:
    return Peer(
        name="stand-in",
        title="Stand-in",
        setup="",
        dtypes=("float32",),
        requirements=(),
        packages=(),
        command=lambda run: [sys.executable, "-c", code],
        path="/classify",
        body=lambda text: json.dumps({"text": text}).encode(),
        label_of=lambda answer: str(json.loads(answer)["label"]),
        env=lambda run: env,
    )


@pytest.fixture(autouse=True)
def bench_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYCLASSIFY_BENCH_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def serve(peer: Peer, port: int, dtype: str = "float32") -> Any:
    return running(peer, model_dir=Path("models/demo"), dtype=dtype, num_threads=2, port=port)


def ask(endpoint: Endpoint, text: str) -> str:
    answer = requests.post(
        endpoint.url + endpoint.path, data=endpoint.body(text), headers=endpoint.headers, timeout=10
    )
    return endpoint.label_of(answer.content)


def test_a_server_is_ready_when_it_has_named_a_label_and_leaves_nothing_behind(
    port: int, bench_dir: Path
) -> None:
    with serve(stand_in(), port) as endpoint:
        assert ask(endpoint, TEXT) == TEXT
        worker = int((bench_dir / "stand-in/runs/stand-in-float32/worker.pid").read_text())
        assert psutil.pid_exists(worker)
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == "zombie"
    with pytest.raises(requests.ConnectionError):
        ask(endpoint, TEXT)


def test_a_server_that_ignores_the_request_to_end_is_killed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_TIMEOUT_S", 0.5)
    with serve(stand_in(STUBBORN="1"), port) as endpoint:
        pass
    with pytest.raises(requests.ConnectionError):
        ask(endpoint, TEXT)


def test_a_failure_of_the_measurement_stops_the_server_too(port: int) -> None:
    with pytest.raises(ZeroDivisionError), serve(stand_in(), port) as endpoint:
        raise ZeroDivisionError
    with pytest.raises(requests.ConnectionError):
        ask(endpoint, TEXT)


def test_a_benchmark_that_is_asked_to_end_stops_the_server_first(port: int) -> None:
    with pytest.raises(SystemExit), serve(stand_in(), port) as endpoint:
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(requests.ConnectionError):
        ask(endpoint, TEXT)


def test_a_server_that_dies_at_start_is_unavailable_and_says_why_without_our_folders(
    port: int,
) -> None:
    with pytest.raises(PeerUnavailable) as failure, serve(stand_in(DIES), port):
        pass
    assert str(failure.value) == "it ended with status 1: ValueError: no model in …/config.json"


def test_a_server_whose_answer_names_no_label_is_unavailable(port: int) -> None:
    with (
        pytest.raises(PeerUnavailable, match="its answer names no label: KeyError"),
        serve(stand_in(FIELD="class"), port),
    ):
        pass


def test_a_precision_that_a_peer_does_not_offer_is_said(port: int) -> None:
    with (
        pytest.raises(PeerUnavailable, match="it offers float32, not bfloat16"),
        serve(stand_in(), port, "bfloat16"),
    ):
        pass


def test_a_program_that_is_missing_is_said(port: int) -> None:
    peer = stand_in()
    object.__setattr__(peer, "command", lambda run: ["no-such-program"])
    with (
        pytest.raises(PeerUnavailable, match="no-such-program can't be started: No such file"),
        serve(peer, port),
    ):
        pass


def test_what_pip_says_is_the_reason(monkeypatch: pytest.MonkeyPatch, bench_dir: Path) -> None:
    monkeypatch.setenv("RAYCLASSIFY_BENCH_PIP_ARGS", "--no-index --find-links ''")
    peer = stand_in()
    object.__setattr__(peer, "requirements", ("no-such-package==1.0",))
    with pytest.raises(PeerUnavailable, match=r"pip can't install it: ERROR: .*no-such-package"):
        install(peer)
    assert not (bench_dir / "stand-in" / "requirements.txt").exists()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_is_started_from_its_environment_on_its_port_with_the_model_and_precision(
    peer: Peer, tmp_path: Path
) -> None:
    run = Run(peer.bin, tmp_path, Path("/models/bert"), peer.dtypes[0], 4, 23456)
    command = list(peer.command(run))
    files = "".join(p.read_text() for p in tmp_path.iterdir() if p.is_file())
    assert Path(command[0]).parent == peer.bin
    if peer.name not in ("ray-chain", "litserve"):  # these read PEER_PORT
        assert "23456" in " ".join(command) + files
    if peer.name == "infinity":  # the others read PEER_MODEL_DIR and PEER_DTYPE
        assert {"/models/bert", "float32"} <= set(command)
    assert all("==" in requirement for requirement in peer.requirements)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peers_threads_are_as_many_as_asked_for_in_all(peer: Peer, tmp_path: Path) -> None:
    run = Run(peer.bin, tmp_path, Path("/models/bert"), peer.dtypes[0], 4, 23456)
    env = process.environment_variables(run.bin, 4) | peer.env(run)
    workers = 4 if peer.name == "torchserve" else int(env.get("PEER_WORKERS", "1"))
    assert int(env["OMP_NUM_THREADS"]) * workers == 4


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_body_carries_the_text_unharmed(peer: Peer) -> None:
    def strings(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(strings, value.values()))
        if isinstance(value, list):
            return set().union(*map(strings, value))
        return {value} if isinstance(value, str) else set()

    assert TEXT in strings(json.loads(peer.endpoint(1).body(TEXT)))


ANSWERS = {
    "bentoml": [{"label": "positive", "score": 0.9}],
    "infinity": {
        "data": [[{"label": "negative", "score": 0.1}, {"label": "positive", "score": 0.9}]]
    },
    "mlserver": {"outputs": [{"name": "label", "shape": [1, 1], "data": ["positive"]}]},
}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_the_label_is_found_in_a_peers_answer(peer: Peer) -> None:
    answer = ANSWERS.get(peer.name, {"label": "positive", "score": 0.9})
    assert peer.endpoint(1).label_of(json.dumps(answer).encode()) == "positive"


def test_arguments_for_pip_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCLASSIFY_BENCH_PIP_ARGS", "--extra-index-url 'https://a b'")
    peer = next(peer for peer in PEERS if peer.requirements)
    command = pip_command(peer)
    assert command[command.index("--extra-index-url") + 1] == "https://a b"
    assert command[-len(peer.requirements) :] == list(peer.requirements)


def test_the_first_error_at_the_end_of_a_log_is_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        "errors: 0\n\x1b[31mImportError: cannot import x (/a/b/c.py)\x1b[0m\nOSError: closed\nbye\n"
    )
    assert reason(log) == "ImportError: cannot import x (…/c.py)"
    log.write_text("started\njava not found\n\n")
    assert reason(log) == "java not found"
    log.write_text("")
    assert reason(log) == ""


def test_no_variable_of_our_own_environment_leaks_into_a_peers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    env = process.environment_variables(Path("/peer/bin"), 2)
    assert not {"RAY_SERVE_THROUGHPUT_OPTIMIZED", "PYTHONPATH"} & set(env)
    assert env["PATH"].split(os.pathsep)[0] == "/peer/bin"
