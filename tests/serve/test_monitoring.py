"""The dashboard and the alerts, asked of a real Prometheus that scrapes a real service.

Debian has it in the package `prometheus`. It takes eight minutes; `RAYCLASSIFY_IMAGES=DIR` keeps
pictures of the panels there, with the moments at which alerts fired.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from launched import START_S, Run, serve
from running import ROOT

from deployments.launch import ports, processes
from deployments.launch.targets import STATE_DIR_ENV
from scripts.bench.process import wait_until
from scripts.monitoring import pictures
from scripts.monitoring.panels import DASHBOARD, asked
from scripts.monitoring.prometheus import Prometheus
from scripts.monitoring.rules import hurried, rules
from scripts.render_docs import QUESTIONS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.trials,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="no prometheus here: apt-get install prometheus"
    ),
]

SCRAPE_S = 5
PHASE_S = 240
GOOD, BAD = "质量很好，会再来", "太差了，用了两天就坏。"
LONG = f"{GOOD}{BAD}" * 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One Classifier and a short queue, so that it can be filled."""
    folder = tmp_path_factory.mktemp("service")
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    config["http_options"]["port"] = ports.next_port()
    (app,) = config["applications"]
    app["args"] |= {"limits": {"max_queue_s": 2.0}}
    app["args"]["engine"] = {"name": "torch", "dtype": "float32"}  # no measurement before
    for deployment in app["deployments"]:
        deployment["autoscaling_config"]["max_replicas"] = 1
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    state = {STATE_DIR_ENV: str(folder / "state")}
    with serve(path, within_s=1_200, **state) as running:
        running.wait_for("Ready:")
        line = running.wait_for("Metrics for Prometheus:")
        running.lines.append(line)
        yield running


@pytest.fixture(scope="module")
def prometheus(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It finds the service by the file that `rayclassify serve` names."""
    folder = tmp_path_factory.mktemp("prometheus")
    found = re.search(r"file_sd_configs: (\S+)\)", "\n".join(run.lines))
    assert found
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "rayclassify", "file_sd_configs": [{"files": [found[1]]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (folder / "rules.yaml").write_text(hurried())
    port = ports.next_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        there = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(lambda: has_scraped(there), "the first scrape", 60.0)
        yield there
    finally:
        process.terminate()
        process.wait(30)


def has_scraped(prometheus: Prometheus) -> bool:
    try:
        return bool(prometheus.values("up == 1"))
    except requests.ConnectionError:
        return False


def url(run: Run) -> str:
    (line,) = [line for line in run.lines if line.startswith("Ready:")]
    return line.removeprefix("Ready: ")


def classifiers(run: Run) -> list[psutil.Process]:
    found = processes.replicas(processes.of_run(run.dir))
    return [process for process, name in found.items() if name == "Classifier"]


@contextmanager
def load(
    service: str, callers: int, pause_s: float, bodies: list[tuple[str, Any]]
) -> Iterator[None]:
    """So many callers, who ask one body after the other until the block ends."""
    ended = threading.Event()

    def ask() -> None:
        session = requests.Session()
        for path, body in itertools.cycle(bodies):
            if ended.wait(pause_s):
                return
            try:
                session.post(service + path, json=body, timeout=60)
            except requests.RequestException:
                ended.wait(0.5)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


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


def fires_and_clears(
    prometheus: Prometheus, names: set[str], make: Callable[[], Any], until: Callable[[], Any]
) -> None:
    """`make` is called again and again until all these fire; after `until` they clear."""
    began = time.monotonic()

    def note(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}")

    seen: set[str] = set()

    def all_fired() -> bool:
        make()
        for name in prometheus.firing() - seen:
            note(f"{name} fires")
            seen.add(name)
        return names <= seen

    wait_until(all_fired, f"{names} to fire", PHASE_S)
    until()
    note("the cause is gone")
    wait_until(lambda: not names & prometheus.firing(), f"{names} to clear", PHASE_S)
    note(f"{', '.join(sorted(names))} cleared")


@pytest.mark.usefixtures("ordinary")
def test_every_panel_rule_and_question_has_data(prometheus: Prometheus) -> None:
    queries = [
        *(asked(q) for panels in DASHBOARD.values() for panel in panels for q in panel.queries),
        *(query for queries in QUESTIONS.values() for query in queries),
        *rules("record"),
    ]

    def without_data() -> list[str]:
        return [query for query in queries if not prometheus.values(query)]

    deadline = time.monotonic() + 120
    while without_data() and time.monotonic() < deadline:
        time.sleep(SCRAPE_S)
    assert without_data() == []
    print(f"{len(queries)} queries have data")


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
