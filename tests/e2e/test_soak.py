"""`scripts/torture.py soak`, one wave of it: every answer counted, every process watched."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from deployments.bench.client import RIGHT
from scripts.bench.store import Store
from tests.trials import soak, soak_findings
from tests.trials.mixed import ALLOWED, MIX
from tests.trials.report import page
from tests.trials.session import Session

# What runs beside the replicas, as far as one machine's Ray has it.
OURS = {
    *("Tokenizer", "Classifier", "Postprocessor", "haproxy", "ray::ServeController"),
    *("ray::ProxyActor", "raylet", "gcs_server", "dashboard", "ray::DashboardAgent"),
    *("serve run", "rayclassify serve", "caller by handle", "this trial and its load"),
}
PLAN = soak.Plan(length_s=15.0, shortest_wave_s=15.0)


@pytest.mark.slow
@pytest.mark.trials
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk measures the capacity; install it")
def test_a_wave_is_answered_and_every_process_watched(tmp_path: Path) -> None:
    store = Store(tmp_path / "reliability.json")
    session = Session(store, Console())
    known = soak.known_labels(200)
    with (
        session.mode("soak", 10) as part,
        soak.running(PLAN, ("engine.name=torch", "engine.dtype=float32")) as service,
    ):
        soak.soak_of(session, part, PLAN, service, known, closed_loop_s=1.0).run(service, known)
        soak_findings.judge(part)
    figures = part.figures
    counted = {kind: sum(counts.values()) for kind, counts in figures["outcomes"].items()}
    assert sum(counted.values()) == figures["asked"] > 0
    assert counted.keys() == MIX.keys()
    for kind, counts in figures["outcomes"].items():
        assert counts.keys() <= ALLOWED, (kind, figures["examples"])
        assert kind == "hung up on" or counts[RIGHT] > 0
    assert set(figures["by_handle"]) <= {RIGHT, "shed"}
    assert {one["kind"] for one in figures["processes"]} >= OURS
    # It began with one: whether the load or, before it, the closed loop brought the second.
    assert max(count for _, count in figures["classifiers"]) == 2
    assert figures["ready_after"]
    assert figures["tracebacks"] == 0
    saved = Store(store.path).modes
    assert saved["soak"]["complete"]
    assert re.search(r"^\| (1 × )?Tokenizer(, short-lived)? \|", page(saved), re.MULTILINE)
