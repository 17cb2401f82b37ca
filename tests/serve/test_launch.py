"""`rayclassify serve` as a person uses it: start, ask, Ctrl-C, start again; and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import requests
from launched import START_S, STOP_S, TRIES, Run, serve
from running import without_numbers

from deployments.launch import ports, processes
from deployments.launch.log_lines import LogDirectory
from deployments.launch.preflight import check_leftovers
from deployments.launch.targets import STATE_DIR_ENV

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * (START_S + STOP_S))]


@pytest.fixture(scope="module")
def port() -> int:
    """One for all: who starts again on the port that was just left must find it free."""
    return ports.next_port()


@pytest.fixture
def config(tmp_path: Path, port: int) -> Path:
    """A copy of our config for a free port, elsewhere than the checkout."""
    return copied_to(tmp_path, port)


def copied_to(directory: Path, port: int) -> Path:
    text = (ROOT / "serve_config.yaml").read_text(encoding="utf-8")
    path = directory / "config.yaml"
    path.write_text(re.sub(r"port: 8000\b", f"port: {port}", text), encoding="utf-8")
    return path


REPLICA_LOGS = "ray/session_latest/logs/serve/replica_*.log"


def of_run(run_dir: Path) -> list[psutil.Process]:
    """Processes of a run by either sign: their environment, or its directory in their command."""
    named = []
    for process in psutil.process_iter():
        try:
            if any(str(run_dir) in part for part in process.cmdline()):
                named.append(process)
        except psutil.Error:
            continue
    return [*named, *processes.of_run(run_dir)]


def seed_client(port: int) -> str:
    label: str = requests.post(
        f"http://127.0.0.1:{port}/classify", json={"text": "这是一个示例文本"}, timeout=60
    ).json()["label"]
    return label


def labels_by_handle(run: Run) -> str:
    """As a driver in a second terminal is told to: by the address that stands there."""
    (line,) = [line for line in run.lines if "RAY_ADDRESS=" in line]
    code = "from ray import serve; ask = serve.get_app_handle('classify').classify.remote"
    asked = subprocess.run(
        [sys.executable, "-c", f"{code}; print(ask('质量很好，会再来').result()['label'])"],
        env={**os.environ, **dict(re.findall(r"(RAY_\w+)=(\S+)", line))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def test_start_ask_and_interrupt(config: Path, port: int) -> None:
    metrics_port = ports.next_port()
    state = config.parent / "state"
    named = {STATE_DIR_ENV: str(state), "RAYCLASSIFY_METRICS_PORT": str(metrics_port)}
    with serve(config, **named) as run:
        assert run.wait_for("Ready:") == f"Ready: http://localhost:{port}"
        targets = state / "prometheus" / f"{port}.json"
        assert run.wait_for("Metrics") == (
            f"Metrics for Prometheus: http://localhost:{metrics_port}/metrics "
            f"(file_sd_configs: {targets})"
        )
        (group,) = json.loads(targets.read_text())
        scraped = requests.get(f"http://{group['targets'][0]}/metrics", timeout=10)
        assert scraped.ok
        assert scraped.text.startswith("# HELP ")
        told = requests.get(f"http://127.0.0.1:{port}/", timeout=10).json()["metrics"]
        assert [url.rpartition(":")[2] for url in told] == [f"{metrics_port}/metrics"]
        assert seed_client(port) in {"positive", "negative"}
        assert labels_by_handle(run) == "positive"
        assert len(of_run(run.dir)) > 5
        assert all(path.stat().st_size for path in run.dir.glob(REPLICA_LOGS))
        assert run.interrupt() == 0, run.lines
        assert run.lines[-1] == "Stopped."
        assert of_run(run.dir) == []
        assert not run.dir.exists()
        assert ports.is_free(port)
        assert not targets.exists()
    assert any("/classify -H 'Content-Type: application/json'" in line for line in run.lines)
    (kept,) = [line for line in run.lines if line.startswith("Its logs are kept: ")]
    said = LogDirectory(Path(kept.partition(": ")[2]) / "serve").read()
    by_replica: dict[str, str] = {}
    for line in said:
        by_replica[line.source] = by_replica.get(line.source, "") + line.message
    assert "loaded in " in by_replica["Classifier"]
    assert "ready after " in by_replica["Tokenizer"]
    assert "decodes for model " in by_replica["Postprocessor"]
    for name in ("Tokenizer", "Classifier", "Postprocessor"):
        assert "this replica ends: " in by_replica[name]


def in_sessions(sessions: set[int]) -> list[psutil.Process]:
    """Processes in one of these sessions, whatever they say of themselves; zombies have ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def test_interrupted_in_mid_start_nothing_is_left(config: Path) -> None:
    with serve(config) as run:
        run.wait_for("deploying")
        sessions = {os.getsid(process.pid) for process in processes.of_run(run.dir)}
        assert run.interrupt() == 0, run.lines
        assert of_run(run.dir) == []
        assert in_sessions(sessions) == []  # Ray's agents hide their environment


@pytest.mark.trials  # 35 s for a fault of one line
def test_a_closed_pipe_does_not_keep_it_from_stopping(config: Path) -> None:
    with serve(config) as run:
        run.wait_for("deploying")
        assert run.process.stdout is not None
        run.process.stdout.close()
        run.process.send_signal(signal.SIGHUP)
        assert run.process.wait(STOP_S) == 0
        assert of_run(run.dir) == []


# A method each of Serve's replicas, and of Ray's workers, raylets, object stores, GCS and agents.
# The first two run what they are sent.
GRPC_METHODS = (
    "/ray.serve.ASGIService/HandleRequest",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.ReporterService/GetTraceback",
)


def listeners(run_dir: Path) -> dict[int, tuple[str, str]]:
    """Port → address and process, of all that a run listens on."""
    names = {process.pid: process.name() for process in processes.of_run(run_dir)}
    return {
        connection.laddr.port: (connection.laddr.ip, names[connection.pid])
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in names
    }


def grpc_answer(port: int, method: str) -> grpc.StatusCode:
    """What a gRPC server says to an empty message without a token."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", timeout=10)
        except grpc.RpcError as exc:
            return exc.code()
    return grpc.StatusCode.OK


@dataclass
class Guarded:
    run: Run
    port: int


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A service that asks for a key, for the two tests that follow; the second kills it."""
    port = ports.next_port()
    config = copied_to(tmp_path_factory.mktemp("guarded"), port)
    (config.parent / "keys.json").write_text('{"keys": []}')
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("keys_file: null", "keys_file: keys.json"), encoding="utf-8")
    with serve(config, within_s=2 * (START_S + STOP_S)) as run:
        run.wait_for("Ready:")
        yield Guarded(run, port)


def test_every_open_port_asks_for_a_key_or_a_token_but_for_metrics(guarded: Guarded) -> None:
    found = listeners(guarded.run.dir)

    # Ray's agent of the node has its door there too, on some machines.
    (dashboard,) = [
        p for p, (ip, name) in found.items() if ip == "127.0.0.1" and "Agent" not in name
    ]
    for token in ({}, {"Authorization": "Bearer wrong"}):
        for method, path in (
            ("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/api/version"),
            ("GET", "/api/serve/applications/"), ("PUT", "/api/serve/applications/"),
            ("GET", "/logs/"), ("GET", "/api/v0/actors"), ("GET", "/nodes?view=summary"),
        ):  # fmt: skip
            answer = requests.request(
                method,
                f"http://127.0.0.1:{dashboard}{path}",
                headers=token,
                json={"entrypoint": "true"},
                timeout=10,
            )
            assert answer.status_code in (401, 403), (method, path, answer.status_code)

    # gRPC listens on all addresses.
    told = {
        (p, method): grpc_answer(p, method)
        for p, (ip, _) in found.items()
        if ip == "::"
        for method in GRPC_METHODS
    }
    refused = {p for (p, _), code in told.items() if code == grpc.StatusCode.UNAUTHENTICATED}
    others = {p: found[p][1] for p, (ip, _) in found.items() if ip == "::" and p not in refused}
    assert others == {}
    assert set(told.values()) <= {
        grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED,
    }  # fmt: skip

    # HTTP: our door, a replica's own and the fallback proxy's; the others only count.
    doors = {}
    for p, (ip, _) in found.items():
        if ip != "::" and p != dashboard:
            answer = requests.post(
                f"http://{'127.0.0.1' if ip == '0.0.0.0' else ip}:{p}/classify",  # noqa: S104
                json={"text": "a"},
                timeout=10,
            )
            assert answer.status_code >= 400, (p, found[p])
            doors[p] = answer.status_code
    assert doors[guarded.port] == 401
    ours = [status for p, status in doors.items() if "Agent" not in found[p][1]]
    assert ours.count(401) == 3, (doors, found)


def test_a_killed_launcher_is_found_by_the_next(guarded: Guarded, config: Path) -> None:
    run = guarded.run
    run.process.kill()
    run.process.wait()
    (found,) = [f for f in check_leftovers() if run.dir.name in f.message]
    with serve(config) as second:
        line = second.wait_for("error:")
        assert "of an earlier run" in line
        assert second.process.wait(60) == 1
    pids = [int(pid) for pid in found.message.partition("kill -9 ")[2].strip("`.").split()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    psutil.wait_procs(of_run(run.dir), timeout=30)
    assert of_run(run.dir) == []


def test_a_model_without_weights_is_refused_before_anything_starts(
    config: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "bert"}')
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("id: models/demo", "id: broken"), encoding="utf-8")
    with serve(config) as run:
        assert "model 'broken' has no weights" in run.wait_for("error:")
        assert run.process.wait(STOP_S) == 1
        assert not any(line.startswith("Log:") for line in run.lines)


def test_a_model_that_does_not_load_is_told_in_a_few_lines(config: Path, tmp_path: Path) -> None:
    without_numbers(Path(shutil.copytree(ROOT / "models" / "demo", tmp_path / "broken")))
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("id: models/demo", "id: broken"), encoding="utf-8")
    with serve(config, **{TRIES: "2"}) as run:
        run.wait_for("error: the deployment failed")
        assert run.process.wait(STOP_S) == 1
        assert run.process.stdout is not None
        rest = run.process.stdout.read().splitlines()
        log = next(line for line in rest if line.startswith("The whole log: "))
        assert Path(log.partition(": ")[2]).is_file()
        assert len(rest) < 15, rest
        assert of_run(run.dir) == []


def test_a_taken_port_is_one_line(config: Path, port: int) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before rest
        other.bind(("", port))
        other.listen()
        with serve(config) as run:
            line = run.wait_for("error:")
            assert run.process.wait(60) == 1
    assert f"port {port} is taken by" in line
    assert f"(pid {os.getpid()})" in line
    assert "http_options.port" in line


def test_a_typo_gets_the_near_name(config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("route_prefix:", "route_prefx:"), encoding="utf-8")
    with serve(config) as run:
        assert run.process.wait(60) == 2
        assert run.process.stdout is not None
        told = run.process.stdout.read()
    assert "route_prefx" in told
    assert "route_prefix" in told
