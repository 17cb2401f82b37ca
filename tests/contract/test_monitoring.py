"""k8s/monitoring: rendered from its list, of metrics that there are, in PromQL that works.

tests/serve/test_monitoring.py asks the same of a real Prometheus.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from deployments.replica.metric_table import METRICS
from scripts import render_monitoring
from scripts.monitoring.panels import DASHBOARD, asked
from scripts.monitoring.rules import FOLDER, RULES, hurried, rules
from scripts.render_docs import QUESTIONS, SERVE_METRICS

CASES = Path(__file__).with_name("rules_test.yaml")
PAGE = (FOLDER.parents[1] / "docs" / "monitoring.md").read_text(encoding="utf-8")
PANELS = [panel for panels in DASHBOARD.values() for panel in panels]
QUERIES = {
    **{f"{panel.title} {i}": q for panel in PANELS for i, q in enumerate(panel.queries)},
    **{name: rule["expr"] for kind in ("record", "alert") for name, rule in rules(kind).items()},
}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus"
)


def promtool(*arguments: str, cwd: Path) -> str:
    ran = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_what_is_rendered_is_up_to_date() -> None:
    assert CliRunner().invoke(render_monitoring.app, ["--check"]).exit_code == 0


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    told = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= set(told)
    ids = [panel["id"] for panel in told["panels"]]
    assert len(ids) == len(set(ids))
    sections = [panel["title"] for panel in told["panels"] if panel["type"] == "row"]
    assert sections == list(DASHBOARD)
    drawn = {panel["title"] for panel in told["panels"] if panel["type"] == "timeseries"}
    assert drawn == {panel.title for panel in PANELS}
    # Side by side, one below the other, and none over another.
    places: set[tuple[int, int]] = set()
    for panel in told["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not places & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= cells


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_asks_for_metrics_that_there_are(query: str) -> None:
    ours = {name for metric in METRICS for name in metric.series}
    there = ours | set(SERVE_METRICS) | set(rules("record"))
    named = set(re.findall(r"\b(?:ray_\w+|application\w*:[\w:]+)", query))
    assert named
    assert named <= there


def test_labels_that_queries_name_are_those_that_metrics_have() -> None:
    known = {label for metric in METRICS for label in metric.labels}
    known |= {"application", "deployment", "replica", "le"}
    for query in QUERIES.values():
        for labels in re.findall(r"by \(([^)]*)\)", query):
            assert {label.strip() for label in labels.split(",")} <= known, query


def test_each_metric_of_ours_is_on_the_dashboard_or_answers_a_question() -> None:
    text = " ".join([*QUERIES.values(), *(q for queries in QUESTIONS.values() for q in queries)])
    for metric in METRICS:
        shown = any(re.search(rf"\b{name}\b", text) for name in metric.series)
        assert shown or metric.name in {"tokenizer_checks_total", "wait_seconds"}, metric.name


def test_each_alert_says_what_to_do_and_stands_on_the_page() -> None:
    for name, rule in rules("alert").items():
        assert set(rule["annotations"]) == {"summary", "description"}, name
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert f"`{name}`" in PAGE, name


def test_each_alert_has_its_case() -> None:
    tests: list[dict[str, Any]] = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    fired, quiet = set(), set()
    for test in tests:
        for case in test["alert_rule_test"]:
            (fired if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert fired == quiet == set(rules("alert"))


def test_the_trials_rules_differ_in_times_only() -> None:
    told = yaml.safe_load(hurried())["groups"]
    names = [rule.get("alert") or rule["record"] for group in told for rule in group["rules"]]
    assert names == [*rules("record"), *rules("alert")]
    assert not re.search(r"\[\d+[mh]\]", hurried())


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    assert f"{len(rules('record')) + len(rules('alert'))} rules found" in promtool(
        "check", "rules", str(RULES), cwd=FOLDER
    )


@needs_promtool
def test_each_alert_fires_when_its_condition_is_made_and_clears(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path / "rules.yaml")
    shutil.copy(CASES, tmp_path / "cases.yaml")
    assert "SUCCESS" in promtool("test", "rules", "cases.yaml", cwd=tmp_path)


@needs_promtool
def test_prometheus_takes_the_queries(tmp_path: Path) -> None:
    queries = [asked(query) for panel in PANELS for query in panel.queries]
    queries += [query for queries in QUESTIONS.values() for query in queries]
    recorded = [{"record": f"query:{i}", "expr": query} for i, query in enumerate(queries)]
    (tmp_path / "queries.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]})
    )
    promtool("check", "rules", "queries.yaml", cwd=tmp_path)
