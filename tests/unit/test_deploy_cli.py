"""`rayclassify deploy | status | rollback` against a stand-in for Ray's dashboard.

It speaks the recorded JSON; what a real Serve makes of it is in tests/serve/test_deploy.py.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from recorded_serve import details, nodes
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.config.check import BUILDER
from deployments.deploying import kept, rollout
from deployments.model import hub
from deployments.scaling.starts import Start

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "t0ken"  # noqa: S105


class Dashboard(ThreadingHTTPServer):
    """Serves what it is told to serve. `fails`: model ids whose deploys fail."""

    daemon_threads = True

    def __init__(self) -> None:
        self.told = details("two_running")
        self.nodes = nodes()
        self.puts: list[dict[str, Any]] = []
        self.fails: set[str] = set()
        self.pends: set[str] = set()
        self.logs: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, document: dict[str, Any]) -> None:
        self.puts.append(document)
        for asked in document["applications"]:
            name = asked["name"]
            there = self.told["applications"].get(name)
            if there is not None and there["deployed_app_config"] == asked:
                continue
            model = asked.get("args", {}).get("model", {}).get("id")
            like = "failed" if model in self.fails else "no_room" if model in self.pends else None
            shape = details(like or "two_running")["applications"]["classify"]
            self.told["applications"][name] = {
                **copy.deepcopy(shape),
                "name": name,
                "deployed_app_config": asked,
                "last_deployed_time_s": time.time(),
            }


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/api/v0/logs/file":
            (name,) = parse_qs(url.query)["filename"]
            log = self.server.logs.get(name)
            self._send((log or "").encode(), 200 if log else 500)
            return
        answers: dict[str, Any] = {
            "/api/version": {"session_name": "session_1"},
            "/api/serve/applications/": self.server.told,
            "/nodes?view=summary": {"data": self.server.nodes},
            "/api/prometheus/sd": [{"labels": {"job": "ray"}, "targets": ["10.0.0.1:8080"]}],
        }
        self._answer(answers.get(self.path), 200 if self.path in answers else 404)

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            self.server.put(body)
        self._answer({})

    def _answer(self, body: Any, status: int = 200) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            body, status = {}, 401
        self._send(json.dumps(body).encode(), status)

    def _send(self, encoded: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    for name in ("RAY_DASHBOARD_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv(kept.STATE_DIR_ENV, str(tmp_path / "state"))
    for name in ("_TICK_S", "_SETTLE_S"):
        monkeypatch.setattr(rollout, name, 0.01)
    with Dashboard() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", server.url)
        yield server
        server.shutdown()


@pytest.fixture
def config(tmp_path: Path, demo_model: Path) -> Path:
    return config_for(tmp_path, str(demo_model))


def config_for(directory: Path, model: str, revision: str | None = None) -> Path:
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    document["applications"][0]["args"]["model"] |= {"id": model, "revision": revision}
    path = directory / f"{Path(model).name}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def model_of(document: dict[str, Any]) -> dict[str, Any]:
    (ours,) = [a for a in document["applications"] if a["name"] == "classify"]
    model: dict[str, Any] = ours["args"]["model"]
    return model


def test_a_deploy_that_serves_pins_the_model_keeps_the_others_and_itself(
    dashboard: Dashboard, config: Path, demo_model: Path
) -> None:
    result = run("deploy", config)
    assert result.exit_code == 0, result.output
    (document,) = dashboard.puts
    assert {a["name"] for a in document["applications"]} == {"classify", "echo"}
    assert model_of(document)["id"] == str(demo_model)
    assert len(model_of(document)["fingerprint"]) == 64
    assert "It serves after" in result.output
    first, second = kept.Kept(dashboard.url, "classify").served()
    assert first.app["args"]["model"] == model_of(document)
    assert second.app["args"]["model"]["id"] == "/models/m1"  # what served before


def test_what_fails_is_rolled_back(dashboard: Dashboard, config: Path, demo_model: Path) -> None:
    dashboard.fails = {str(demo_model)}
    result = run("deploy", config)
    assert result.exit_code == 1
    assert [model_of(d)["id"] for d in dashboard.puts] == [str(demo_model), "/models/m1"]
    assert "the deploy failed" in result.output
    assert "Classifier: ModelNotFound" in result.output
    assert "It serves as before" in result.output


def test_no_rollback_leaves_it_failed_and_a_second_deploy_is_new_to_serve(
    dashboard: Dashboard, config: Path, demo_model: Path
) -> None:
    dashboard.fails = {str(demo_model)}
    assert run("deploy", config, "--no-rollback").exit_code == 1
    assert len(dashboard.puts) == 1
    status = run("status")
    assert status.exit_code == 1
    assert "rayclassify rollback" in status.output
    dashboard.fails = set()
    result = run("deploy", config)
    assert result.exit_code == 0, result.output
    assert "env_vars" in dashboard.puts[1]["applications"][-1]["runtime_env"]


def test_what_is_only_pending_is_waited_for_until_the_time_is_over(
    dashboard: Dashboard, config: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "_PLACING_S", 0.1)
    dashboard.pends = {str(demo_model)}
    result = run("deploy", config, "--timeout-s", "1")
    assert result.exit_code == 1
    assert "it does not serve after 1 s" in result.output
    assert "no room: Classifier asks for 0.8 CPU; 10.0.0.1 has 0.7 of 2 CPU free" in result.output
    assert model_of(dashboard.puts[-1])["id"] == "/models/m1"


def test_rollback_goes_to_what_served_before_and_again_forth(
    dashboard: Dashboard, config: Path, demo_model: Path
) -> None:
    assert run("deploy", config).exit_code == 0
    result = run("rollback")
    assert result.exit_code == 0, result.output
    assert model_of(dashboard.puts[-1])["id"] == "/models/m1"
    assert run("deploy", config).exit_code == 0
    other = config_for(config.parent, str(demo_model), "unused")
    document = yaml.safe_load(other.read_text())
    document["applications"][0]["args"]["model"] |= {"revision": None, "max_length": 99}
    other.write_text(yaml.safe_dump(document))
    assert run("deploy", other).exit_code == 0
    for expected in (None, 99, None):
        result = run("rollback")
        assert result.exit_code == 0, result.output
        assert model_of(dashboard.puts[-1]).get("max_length") == expected


def test_nothing_kept_is_said_with_the_place(dashboard: Dashboard) -> None:
    result = run("rollback")
    assert result.exit_code == 1
    assert "nothing is kept that served before" in result.output


def test_a_wrong_config_touches_nothing(dashboard: Dashboard, config: Path) -> None:
    config.write_text(config.read_text().replace("route_prefix:", "route_prefx:"))
    result = run("deploy", config)
    assert result.exit_code == 2
    assert "route_prefx" in result.output
    assert dashboard.puts == []


def test_a_model_that_is_not_there_touches_nothing(dashboard: Dashboard, tmp_path: Path) -> None:
    result = run("deploy", config_for(tmp_path, "./no-such-model"))
    assert result.exit_code == 2
    assert "no model in './no-such-model'" in result.output
    assert dashboard.puts == []


def test_a_model_whose_files_show_a_fault_touches_nothing(
    dashboard: Dashboard, tmp_path: Path, demo_model: Path
) -> None:
    weightless = tmp_path / "weightless"
    shutil.copytree(demo_model, weightless)
    (weightless / "model.safetensors").unlink()
    result = run("deploy", config_for(tmp_path, str(weightless)))
    assert result.exit_code == 2
    assert "weights" in result.output
    assert dashboard.puts == []


def test_a_hub_that_does_not_answer_touches_nothing(
    dashboard: Dashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PATIENCE_S", 5.0)
    result = run("deploy", config_for(tmp_path, "org/model", "main"))
    assert result.exit_code == 1
    assert "error: model 'org/model', revision 'main'" in result.output
    assert dashboard.puts == []


def test_somebody_elses_deploy_under_way_is_not_replaced_unasked(
    dashboard: Dashboard, config: Path
) -> None:
    dashboard.told["applications"]["classify"] |= {"status": "DEPLOYING"}
    result = run("deploy", config)
    assert result.exit_code == 1
    assert "is DEPLOYING since" in result.output
    assert "--replace" in result.output
    assert dashboard.puts == []
    assert run("deploy", config, "--replace").exit_code == 0


def test_ones_own_deploy_that_was_cut_off_needs_no_leave(
    dashboard: Dashboard, config: Path, demo_model: Path
) -> None:
    dashboard.pends = {str(demo_model)}
    assert run("deploy", config, "--timeout-s", "1", "--no-rollback").exit_code == 1
    dashboard.pends = set()
    dashboard.told["applications"]["classify"]["deployed_app_config"]["args"]["model"]["id"] = "x"
    assert "--replace" in run("deploy", config).output
    dashboard.told["applications"]["classify"]["deployed_app_config"]["args"]["model"]["id"] = str(
        demo_model
    )
    dashboard.told["applications"]["classify"]["status"] = "DEPLOYING"
    result = run("deploy", config, "--timeout-s", "1", "--no-rollback")
    assert "--replace" not in result.output
    assert len(dashboard.puts) == 2


def test_kuberay_is_refused_with_what_to_do(dashboard: Dashboard, config: Path) -> None:
    dashboard.nodes["summary"][0]["raylet"]["labels"]["ray.io/node-group"] = "headgroup"
    result = run("deploy", config)
    assert result.exit_code == 1
    assert "RayService" in result.output
    assert dashboard.puts == []
    assert run("deploy", config, "--no-rayservice").exit_code == 0


def test_a_wrong_token_is_said(
    dashboard: Dashboard, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    assert "the one found here is not its" in run("status").output
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    result = run("deploy", config)
    assert result.exit_code == 3
    assert "wants a token, and none was found here. Set RAY_AUTH_TOKEN" in result.output
    assert dashboard.puts == []


def test_where_nobody_answers_the_address_and_its_origin_are_said(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.deploying import dashboard as rest

    monkeypatch.setattr(rest, "_PAUSE_S", 0.01)
    result = run("status", "--address", "http://127.0.0.1:1")
    assert result.exit_code == 3
    assert "can't be reached at http://127.0.0.1:1" in result.output
    assert "--address" in result.output


def test_status_of_all_as_json_and_its_exit_code(dashboard: Dashboard) -> None:
    result = run("status", "--json")
    assert result.exit_code == 0
    told = json.loads(result.output)
    assert told["applications"]["classify"]["status"] == "RUNNING"
    assert told["metrics"] == ["http://10.0.0.1:8080/metrics"]
    assert "metrics for Prometheus: http://10.0.0.1:8080/metrics" in run("status").output
    assert told["applications"]["echo"]["deployments"]["Echo"]["running"] == 1
    dashboard.told["applications"]["echo"]["status"] = "UNHEALTHY"
    assert run("status", "--json").exit_code == 1
    assert run("status", "--json", "--app", "classify").exit_code == 0
    assert "There is: classify, echo" in run("status", "--app", "x").output


def autoscaling_state(**more: Any) -> dict[str, Any]:
    work = {"busy": 1.9, "wait_s": 0.5, "reporting": 2, "tokens_per_s": 9_000.0}
    return {
        "at": time.time(), "running": 2, "target": 2, "wanted": 2.71, "least": 1, "most": 4,
        "target_busy": 0.7, "max_wait_s": 1.0, "work": work,
        "decisions": [{"at": time.time() - 50, "before": 1, "after": 2, "work": work}],
        **more,
    }  # fmt: skip


def ours(dashboard: Dashboard) -> None:
    dashboard.told["controller_info"] = {"node_id": "n1"}
    dashboard.told["applications"]["classify"]["deployed_app_config"]["import_path"] = BUILDER


def test_status_says_how_busy_replicas_are_and_why_there_are_so_many(dashboard: Dashboard) -> None:
    ours(dashboard)
    dashboard.logs["serve/autoscaling_classify_Classifier.json"] = json.dumps(autoscaling_state())
    shown = run("status").output
    assert "wanted 2.7 of 1 to 4: busy 95% of 2, wait 0.25 s, 9,000 tokens/s" in shown
    assert re.search(r"5\d s ago: 1 → 2, busy 95% of 2", shown)
    told = json.loads(run("status", "--json").stdout)["applications"]["classify"]["deployments"]
    assert told["Classifier"]["autoscaling"]["work"]["busy"] == 1.9
    assert told["Tokenizer"]["autoscaling"] is None


def test_status_does_not_take_an_old_state_for_news(dashboard: Dashboard) -> None:
    ours(dashboard)
    old = autoscaling_state(at=time.time() - 100)
    dashboard.logs["serve/autoscaling_classify_Classifier.json"] = json.dumps(old)
    assert "no news of its replicas for 10" in run("status").output
    dashboard.logs["serve/autoscaling_classify_Classifier.json"] = "half a fi"
    assert "no news" not in run("status").output


def test_status_shows_the_steps_of_each_start(dashboard: Dashboard) -> None:
    classifier = dashboard.told["applications"]["classify"]["deployments"]["Classifier"]
    (replica, *_) = classifier["replicas"]
    asked = replica["start_time_s"]
    steps = {"files": 0.2, "imports": 2.5, "weights": 0.4, "proof": 0.8, "warm_up": 0.31}
    start = Start(asked + 3.0, asked + 8.0, steps).to_json()
    name = f"start_classify_Classifier_{replica['replica_id']}.json"
    dashboard.logs[f"serve/{name}"] = start
    shown = run("status", "--starts").output
    assert "8.0 s from Serve's decision until it could answer" in shown
    assert "3.0 s  replica" in shown
    assert "2.5 s  imports" in shown
    assert "0.8 s  other" in shown


def test_status_as_csv_has_a_row_for_each_deployment(dashboard: Dashboard) -> None:
    rows = list(csv.DictReader(io.StringIO(run("status", "--format", "csv").stdout)))
    assert {row["application"] for row in rows} == {"classify", "echo"}
    (echo,) = (row for row in rows if row["deployment"] == "Echo")
    assert (echo["application_status"], echo["running"]) == ("RUNNING", "1")
