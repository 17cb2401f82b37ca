"""The dashboard and the alerts, asked of a real Prometheus that scrapes a real service.

Debian has it in the package `prometheus`. It takes eight minutes; `RAYCLASSIFY_IMAGES=DIR` keeps
pictures of the panels there, with the moments at which alerts fired.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from launched import START_S, Run
from monitored import (
    BAD,
    GOOD,
    LONG,
    SECOND_MODELS,
    TRIAL,
    all_have_data,
    fires_and_clears,
    load,
    queries_of,
    serving,
    url,
    watching,
)

from deployments.launch import processes
from scripts.bench.process import wait_until
from scripts.monitoring import pictures
from scripts.monitoring.panels import DASHBOARD
from scripts.monitoring.prometheus import Prometheus
from scripts.monitoring.rules import rules
from scripts.render_docs import QUESTIONS

pytestmark = TRIAL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with serving(tmp_path_factory.mktemp("service"), lambda _: None) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with watching(run, tmp_path_factory.mktemp("prometheus")) as there:
        yield there


def classifiers(run: Run) -> list[psutil.Process]:
    found = processes.replicas(processes.of_run(run.dir))
    return [process for process, name in found.items() if name == "Classifier"]


ORDINARY: list[tuple[str, Any]] = [
    ("/classify", {"text": GOOD}),
    ("/classify", {"text": [GOOD, BAD, " ", LONG * 3]}),
    ("/predict", {"inputs": BAD}),
    ("/classify", {"input": GOOD}),
    ("/classify", {"txet": GOOD}),
]
FLOOD: list[tuple[str, Any]] = [("/classify", {"text": [LONG] * 16, "timeout_ms": 20_000})]


@pytest.fixture(scope="module")
def ordinary(run: Run) -> Iterator[None]:
    """What goes on all the time, whatever else happens."""
    with load(url(run), 2, 0.2, ORDINARY):
        yield


@pytest.mark.usefixtures("ordinary")
def test_every_panel_rule_and_question_has_data(prometheus: Prometheus) -> None:
    queries = queries_of(set(DASHBOARD) - SECOND_MODELS)
    queries += [query for queries in QUESTIONS.values() for query in queries]
    queries += [name for name in rules("record") if not re.search("drift|shadow", name)]
    all_have_data(prometheus, queries)


@pytest.mark.usefixtures("ordinary")
def test_in_ordinary_times_nothing_fires(prometheus: Prometheus) -> None:
    assert prometheus.firing() == set()


@pytest.mark.usefixtures("ordinary")
def test_a_full_queue_fires_and_clears(run: Run, prometheus: Prometheus) -> None:
    with ExitStack() as stack:
        stack.enter_context(load(url(run), 32, 0.0, FLOOD))
        fires_and_clears(prometheus, {"RayclassifyRefuses"}, lambda: None, stack.close)


@pytest.mark.usefixtures("ordinary")
def test_a_slow_model_fires_and_clears(run: Run, prometheus: Prometheus) -> None:
    """Its process gets a third of the time, as beside a greedy neighbour."""
    (process,) = classifiers(run)

    def slow_down() -> None:
        for _ in range(3):
            process.suspend()
            time.sleep(1.4)
            process.resume()
            time.sleep(0.7)

    fires_and_clears(prometheus, {"RayclassifyModelSlow"}, slow_down, process.resume)


@pytest.mark.usefixtures("ordinary")
def test_dead_replicas_fire_and_clear(run: Run, prometheus: Prometheus) -> None:
    def kill() -> None:
        for process in classifiers(run):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.5)

    names = {"RayclassifyReplicasMissing", "RayclassifyReplicasDie"}
    busy = load(url(run), 4, 0.0, FLOOD)  # a replica with nothing to do loses nobody's call
    with ExitStack() as stack:
        stack.enter_context(busy)
        fires_and_clears(prometheus, names, kill, stack.close)
    wait_until(lambda: requests.get(f"{url(run)}/ready", timeout=10).ok, "the service", START_S)


def test_the_panels_are_drawn(prometheus: Prometheus, tmp_path: Path) -> None:
    named = os.environ.get("RAYCLASSIFY_IMAGES")
    drawn = pictures.draw(prometheus, Path(named) if named else tmp_path)
    assert len(drawn) == 2
    assert all(path.stat().st_size > 10_000 for path in drawn)
