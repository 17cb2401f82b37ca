"""What Serve tells, read; what is sent to it, merged; what served, kept: with recorded JSON."""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorded_serve import deployed, details, nodes

from deployments.cli.status import shown, to_json
from deployments.deploying import clusters, kept, pinning
from deployments.deploying.merging import (
    CannotDeploy,
    merged,
    nudge_of,
    nudged,
    pick_application,
    without_nudge,
)
from deployments.deploying.rollout import to_go_back_to
from deployments.deploying.room import Node, has_room, read_nodes, why_no_room
from deployments.deploying.serve_state import (
    AppState,
    Verdict,
    not_of_replicas,
    read_applications,
    verdict,
    what_it_waits_for,
)

ROOT = Path(__file__).resolve().parents[2]
ANY = "0.0.0.0"  # noqa: S104


def state(name: str, app: str = "classify") -> AppState:
    return read_applications(details(name))[app]


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "stands"),
    [
        ("two_running", Verdict.SERVED),
        ("updating", Verdict.WAITING),
        ("retrying", Verdict.WAITING),
        ("no_room", Verdict.WAITING),
        ("failed", Verdict.FAILED),
        ("failed_and_killed", Verdict.FAILED),
    ],
)
def test_a_deploy_stands_as_serve_tells(recorded: str, stands: Verdict) -> None:
    assert verdict(state(recorded), deployed(recorded)) is stands


def test_what_somebody_else_deployed_meanwhile_is_not_taken_for_ours() -> None:
    other = deployed("two_running")
    other["args"]["model"]["id"] = "another"
    assert verdict(state("two_running"), other) is Verdict.REPLACED
    assert verdict(None, other) is Verdict.REPLACED


def test_serves_own_logging_config_is_no_difference() -> None:
    told = details("two_running")
    told["applications"]["classify"]["deployed_app_config"]["logging_config"] = {"encoding": "TEXT"}
    app = read_applications(told)["classify"]
    assert verdict(app, deployed("two_running")) is Verdict.SERVED


def test_a_replica_that_fails_is_told_by_its_error_alone() -> None:
    line = what_it_waits_for(state("retrying"), [])
    assert line.startswith("tried again after: Classifier: ModelNotFound: can't load the weights")
    assert "Traceback" not in line
    assert "\n" not in line
    (reason,) = state("failed").reasons()
    assert reason.startswith("Classifier: ModelNotFound: can't load the weights of '/models/m3'")


def test_a_build_that_fails_is_told_by_the_error_inside_rays_envelope() -> None:
    told = details("failed")
    told["applications"]["classify"] |= {
        "deployments": {},
        "message": "Deploying app 'classify' failed with exception:\n"
        "Traceback (most recent call last):\n"
        "ray.exceptions.RayTaskError(RuntimeError): ray::build_serve_application() (pid=1)\n"
        "RuntimeError: Traceback (most recent call last):\n"
        '  File "deployments/app.py", line 50, in as_deployed\n'
        "deployments.pipeline.errors.ModelRefused: /models/m3 holds no weights. Put them there.\n",
    }
    assert read_applications(told)["classify"].reasons() == [
        "ModelRefused: /models/m3 holds no weights. Put them there."
    ]


def test_no_room_tells_who_asks_for_what_and_what_is_free_where() -> None:
    assert what_it_waits_for(state("no_room"), read_nodes(nodes())) == (
        "no room: Classifier asks for 0.8 CPU; 10.0.0.1 has 0.7 of 2 CPU free"
    )


def test_what_came_into_use_lately_may_be_the_replicas_that_waits() -> None:
    """Its place is taken and its process starts: Serve does not know its node yet."""
    app, told = state("no_room"), read_nodes(nodes())
    others = not_of_replicas([app], told)
    assert others["CPU"] == pytest.approx(0.3)  # of 1.3 in use 1.0 are replicas' with a node
    placed = what_it_waits_for(app, told, {"CPU": 0.8})
    assert placed == "Classifier: 1 of 1 running, 1 waiting for a place"
    assert what_it_waits_for(app, told, {"CPU": 0.7}).startswith("no room: Classifier")


def test_what_is_only_slow_is_no_failure() -> None:
    assert state("no_room").reasons() == []
    assert what_it_waits_for(state("no_room"), []) == (
        "Classifier: 1 of 1 running, 1 waiting for a place"
    )


def test_dead_nodes_give_no_room_and_bytes_are_read() -> None:
    told = nodes()
    (node,) = read_nodes(told)
    assert node.total["memory"] == pytest.approx(21.52 * 2**30)
    assert has_room({"CPU": 0.7, "memory": 1e9}, [node])
    assert not has_room({"CPU": 0.7, "memory": 1e11}, [node])
    told["summary"][0]["raylet"]["state"] = "DEAD"
    assert read_nodes(told) == []
    assert "there is no node" in why_no_room("Classifier", {"GPU": 1}, [])


def test_a_node_of_which_only_its_size_is_known_counts_as_free() -> None:
    told = nodes()
    told["nodeLogicalResources"] = {}
    (node,) = read_nodes(told)
    assert (node.free("CPU"), has_room({"CPU": 2.0}, [node])) == (2.0, True)


def test_of_many_nodes_those_that_lack_least_are_named() -> None:
    many = [Node(f"n{i}", {"CPU": 8.0 - i / 10}, {"CPU": 8.0}) for i in range(9)]
    line = why_no_room("Classifier", {"CPU": 4.0, "GPU": 1.0}, many)
    assert line.startswith(
        "no room: Classifier asks for 4 CPU and 1 GPU; n8 has 0.8 of 8 CPU, 0 of 0 GPU free; n7"
    )
    assert line.endswith("5 more nodes have no more")


# --- status ------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kept.Kept:
    monkeypatch.setenv(kept.STATE_DIR_ENV, str(tmp_path / "state"))
    return kept.Kept("http://127.0.0.1:8265", "classify")


def test_status_of_a_failed_update_says_what_serves_why_and_the_way_back(
    history: kept.Kept,
) -> None:
    history.add({}, deployed("two_running"), "s1")
    lines = shown(state("failed"), history, [])
    assert lines[0].startswith("classify: DEPLOY_FAILED, deployed ")
    text = "\n".join(lines)
    assert "Classifier     1 of 1 running   its update failed: runs the config before" in text
    assert "neither replaced nor scaled" in text
    assert "why: Classifier: ModelNotFound" in text
    assert "served before: /models/m1" in text
    assert "to get back: `rayclassify rollback`" in text
    told = to_json(state("failed"), history, [])
    assert told["deployments"]["Classifier"]["kept_back"]
    assert not told["deployments"]["Tokenizer"]["kept_back"]
    assert told["rollback_to"].endswith(".yaml")
    json.dumps(told)


def test_status_of_a_stage_without_replicas_claims_nothing_serves(history: kept.Kept) -> None:
    text = "\n".join(shown(state("failed_and_killed"), history, []))
    assert "Classifier     0 of 1 running   failed to start" in text
    assert "with the config that served before" in text


def test_status_of_what_runs_is_short(history: kept.Kept) -> None:
    assert shown(state("two_running"), history, [])[1:] == [
        "  Classifier     1 of 1 running",
        "  Postprocessor  1 of 1 running",
        "  Tokenizer      1 of 1 running",
        "  serves: /models/m1",
    ]


# --- merging -----------------------------------------------------------------------------------


def config_of(app: dict[str, Any]) -> dict[str, Any]:
    return {"http_options": {"port": 18611}, "applications": [app]}


def test_the_other_applications_are_sent_back_as_they_are() -> None:
    told = details("two_running")
    app = deployed("two_running")
    app["args"]["model"]["id"] = "/models/m2"
    sent = merged(config_of(app), app, told)
    by_name = {a["name"]: a for a in sent.document["applications"]}
    assert by_name == {"classify": app, "echo": deployed("two_running", "echo")}
    assert sent.document["http_options"] == told["http_options"]
    assert sent.document["proxy_location"] == told["proxy_location"]
    assert sent.notes == ("left as they are: echo",)


def test_what_is_sent_is_what_rays_own_schema_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    app = deployed("two_running")
    ServeDeploySchema.model_validate(merged(config_of(app), app, details("two_running")).document)


def test_options_that_no_deploy_can_change_are_told_and_left() -> None:
    app = deployed("two_running")
    config = {**config_of(app), "http_options": {"port": 8000}, "proxy_location": "HeadOnly"}
    sent = merged(config, app, details("two_running"))
    assert sent.document["http_options"]["port"] == 18611
    assert sent.document["proxy_location"] == "EveryNode"
    assert any("http_options.port is 18611 there and 8000 in the file" in n for n in sent.notes)
    assert any("proxy_location is 'EveryNode'" in n for n in sent.notes)


def test_the_files_logging_config_becomes_the_applications_own() -> None:
    app = deployed("two_running")
    config = {**config_of(app), "logging_config": {"encoding": "JSON"}}
    sent = merged(config, app, details("two_running"))
    assert "logging_config" not in sent.document
    assert sent.app["logging_config"] == {"encoding": "JSON"}


def test_a_target_capacity_stays() -> None:
    app = deployed("two_running")
    told = {**details("two_running"), "target_capacity": 50.0}
    assert merged(config_of(app), app, told).document["target_capacity"] == 50.0


def test_what_serve_run_deployed_is_not_sent_and_so_stays() -> None:
    app = deployed("beside_imperative", "echo")
    sent = merged(config_of(app), app, details("beside_imperative"))
    assert "byhand" not in {a["name"] for a in sent.document["applications"]}
    assert "byhand was deployed by serve.run(), and stays as it is" in sent.notes


def test_an_application_of_somebodys_code_is_not_taken_over() -> None:
    app = {**deployed("beside_imperative", "echo"), "name": "byhand", "route_prefix": "/new"}
    with pytest.raises(CannotDeploy, match=r"deployed by serve\.run\(\).*serve\.delete"):
        merged(config_of(app), app, details("beside_imperative"))


def test_a_taken_route_is_refused() -> None:
    app = {**deployed("two_running"), "name": "second", "route_prefix": "/echo"}
    with pytest.raises(CannotDeploy, match="'echo' has the route '/echo' already"):
        merged(config_of(app), app, details("two_running"))


def test_hidden_values_of_others_are_not_sent_back() -> None:
    told = details("two_running")
    other = told["applications"]["echo"]["deployed_app_config"]
    other["runtime_env"] = {"env_vars": {"SECRET": "<redacted>"}}
    app = deployed("two_running")
    with pytest.raises(CannotDeploy, match="hides the environment of application 'echo'"):
        merged(config_of(app), app, told)


def test_an_application_whose_config_is_not_told_is_not_deleted_by_the_way() -> None:
    told = details("two_running")
    del told["applications"]["echo"]["deployed_app_config"]
    app = deployed("two_running")
    with pytest.raises(CannotDeploy, match="would delete it"):
        merged(config_of(app), app, told)


def test_where_no_serve_runs_the_file_goes_whole() -> None:
    app = deployed("two_running")
    config = {**config_of(app), "logging_config": {"encoding": "JSON"}}
    sent = merged(config, app, {"applications": {}})
    assert sent.document == {**config, "applications": [app]}


def test_args_that_failed_are_sent_so_that_serve_tries_again() -> None:
    app = deployed("failed")
    app["runtime_env"] = {"env_vars": {"A": "1"}}
    plan = nudged(merged(config_of(app), app, details("failed")), "123")
    assert nudge_of(plan.app) == "123"
    assert without_nudge(plan.app) == app
    assert without_nudge(nudged(merged({}, deployed("failed"), details("failed")), "1").app) == (
        deployed("failed")
    )
    assert len(plan.document["applications"]) == 2


def test_of_several_applications_ours_is_meant() -> None:
    ours, other = deployed("two_running"), deployed("two_running", "echo")
    assert pick_application({"applications": [other, ours]}, None) == ours
    assert pick_application({"applications": [other, ours]}, "echo") == other
    assert pick_application({"applications": [other]}, None) == other
    with pytest.raises(CannotDeploy, match=r"no application 'x'\. It has: echo, classify"):
        pick_application({"applications": [other, ours]}, "x")
    second = {**ours, "name": "second"}
    with pytest.raises(CannotDeploy, match="Name one by --app"):
        pick_application({"applications": [ours, second]}, None)


# --- pinning -----------------------------------------------------------------------------------


def test_the_fingerprint_of_a_directory_goes_into_the_args(demo_model: Path) -> None:
    app = deployed("two_running")
    app["args"]["model"] = {"id": str(demo_model)}
    first = pinned_model(app)
    assert len(first["fingerprint"]) == 64
    assert app["args"]["model"] == {"id": str(demo_model)}  # the caller's is not touched


def pinned_model(app: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = pinning.pinned(app)["args"]["model"]
    return model


def test_a_directory_that_was_changed_is_another_update_and_no_way_back(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    app = deployed("two_running")
    app["args"]["model"] = {"id": str(tmp_path)}
    before = pinning.pinned(app)
    assert not pinning.changed_since(before)
    (tmp_path / "config.json").write_text('{"num_labels": 3}')
    assert pinned_model(app)["fingerprint"] != before["args"]["model"]["fingerprint"]
    assert pinning.changed_since(before)
    with pytest.raises(CannotDeploy, match="they were changed since"):
        pinning.pinned(before)


def test_what_is_not_ours_is_not_looked_into() -> None:
    other = deployed("two_running", "echo")
    assert pinning.pinned(other) == other
    assert pinning.shown_model(other) == "echo_app:app"


def test_long_names_of_a_model_are_cut() -> None:
    app = deployed("two_running")
    app["args"]["model"] = {"id": "org/m", "revision": "a" * 40, "fingerprint": "b" * 64}
    assert pinning.shown_model(app) == "org/m at aaaaaaaaaaaa (fingerprint bbbbbbbbbbbb)"


# --- kept --------------------------------------------------------------------------------------


def app_with(model: str) -> dict[str, Any]:
    app = deployed("two_running")
    app["args"]["model"]["id"] = model
    return app


def test_what_served_is_kept_newest_first_and_only_so_many(history: kept.Kept) -> None:
    for i in range(kept.AT_MOST + 3):
        history.add({"proxy_location": "EveryNode"}, app_with(f"m{i}"), "s1")
    models = [entry.app["args"]["model"]["id"] for entry in history.served()]
    assert models == [f"m{i}" for i in reversed(range(3, kept.AT_MOST + 3))]


def test_the_same_again_is_kept_once(history: kept.Kept) -> None:
    first = history.add({}, app_with("m"), "s1")
    second = history.add({}, app_with("m"), "s2")
    assert [entry.path for entry in history.served()] == [second]
    assert not first.exists()
    assert history.served()[0].session == "s2"


def test_kept_files_are_this_users_alone(history: kept.Kept) -> None:
    path = history.add({}, app_with("m"), "s1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.directory.stat().st_mode) == 0o700


def test_a_kept_file_is_a_config_that_check_takes(history: kept.Kept) -> None:
    from deployments.config.check import check_config, load_config

    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    path = history.add(config, config["applications"][0], "s1")
    assert check_config(load_config(path)) == []


def test_what_can_not_be_read_is_left_out(history: kept.Kept) -> None:
    path = history.add({}, app_with("m"), "s1")
    (history.directory / "2026-01-01T00-00-00.000000Z.yaml").write_text("applications: [")
    (history.directory / "notes.yaml").write_text("mine")
    assert [entry.path for entry in history.served()] == [path]


def test_the_way_back_is_the_newest_that_is_not_deployed_now(history: kept.Kept) -> None:
    history.add({}, app_with("/models/m0"), "s1")
    history.add({}, app_with("/models/m1"), "s1")
    back = to_go_back_to(history.served(), state("two_running"))
    assert back is not None
    assert back.app["args"]["model"]["id"] == "/models/m0"
    failed = to_go_back_to(history.served(), state("failed"))
    assert failed is not None
    assert failed.app["args"]["model"]["id"] == "/models/m1"
    assert to_go_back_to([], state("failed")) is None


def test_a_second_deploy_is_refused_and_a_killed_one_holds_nothing(history: kept.Kept) -> None:
    hold = (
        "import sys; from deployments.deploying.kept import Kept\n"
        "with Kept('http://127.0.0.1:8265', 'classify').one_at_a_time():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(CannotDeploy, match="under way on this machine"),
            history.one_at_a_time(),
        ):
            pytest.fail("held twice")
        other.kill()
        other.wait()
    with history.one_at_a_time():
        pass


# --- clusters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265/", "http://head:8265"),
        ("https://ray.example.com", "https://ray.example.com"),
        ("10.0.0.1:6379", "http://10.0.0.1:8265"),
        ("ray://head:10001", "http://head:8265"),
        ("[fd00::1]:6379", "http://[fd00::1]:8265"),
    ],
)
def test_every_kind_of_address_names_the_dashboard(address: str, url: str) -> None:
    assert clusters.as_url(address) == url


def test_a_dashboard_that_took_another_port_is_found_there() -> None:
    command = ["python", "/x/ray/dashboard/dashboard.py", "--host=127.0.0.1", "--port=8265"]
    listening = {(ANY, 44227), ("127.0.0.1", 8268)}
    assert clusters.dashboard_url(command, listening) == "http://127.0.0.1:8268"
    assert clusters.dashboard_url(command, {(ANY, 44227)}) is None
    everywhere = [*command[:2], f"--host={ANY}", "--port=9000"]
    assert clusters.dashboard_url(everywhere, {(ANY, 9000)}) == "http://127.0.0.1:9000"


def test_a_cluster_never_shows_its_token() -> None:
    assert "secret" not in repr(clusters.Cluster("http://h:1", "how", "secret"))


def test_kuberay_is_known_by_the_group_of_its_head() -> None:
    told = nodes()["summary"]
    assert not clusters.managed_by_kuberay(told, {})
    of_kuberay = copy.deepcopy(told)
    of_kuberay[0]["raylet"]["labels"]["ray.io/node-group"] = "headgroup"
    assert clusters.managed_by_kuberay(of_kuberay, {})
    plain = {"RAY_USAGE_STATS_EXTRA_TAGS": "kuberay_version=v1.7.0;kuberay_crd=RayCluster"}
    assert not clusters.managed_by_kuberay(of_kuberay, plain)
    assert clusters.managed_by_kuberay(told, {"RAY_USAGE_STATS_KUBERAY_IN_USE": "1"})
