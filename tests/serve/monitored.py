"""A service that a real Prometheus watches, with our rules, for trials of panels and alerts."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from launched import Run, serve
from running import ROOT

from deployments.launch import ports
from deployments.launch.targets import STATE_DIR_ENV
from scripts.bench.process import wait_until
from scripts.monitoring.panels import DASHBOARD, asked
from scripts.monitoring.prometheus import Prometheus
from scripts.monitoring.rules import hurried

SCRAPE_S = 5
PHASE_S = 240
GOOD, BAD = "质量很好，会再来", "太差了，用了两天就坏。"
LONG = f"{GOOD}{BAD}" * 30

SECOND_MODELS = {"Drift", "Cascade", "Model on trial"}
"""Sections of the dashboard that are empty where a service has neither."""

TRIAL = [
    pytest.mark.slow,
    pytest.mark.trials,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="no prometheus here: apt-get install prometheus"
    ),
]


@contextmanager
def serving(folder: Path, change: Callable[[dict[str, Any]], None]) -> Iterator[Run]:
    """One replica of each and a short queue, so that it can be filled. change: the application's
    part of serve_config.yaml, in place."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    config["http_options"]["port"] = ports.next_port()
    (app,) = config["applications"]
    app["args"] |= {"limits": {"max_queue_s": 2.0}}
    app["args"]["engine"] = {"name": "torch", "dtype": "float32"}  # no measurement before
    for deployment in app["deployments"]:
        deployment["autoscaling_config"]["max_replicas"] = 1
    change(app)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    state = {STATE_DIR_ENV: str(folder / "state")}
    with serve(path, within_s=1_200, **state) as running:
        running.wait_for("Ready:")
        line = running.wait_for("Metrics for Prometheus:")
        running.lines.append(line)
        yield running


@contextmanager
def watching(run: Run, folder: Path) -> Iterator[Prometheus]:
    """It finds the service by the file that `rayclassify serve` names."""
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


def queries_of(sections: set[str]) -> list[str]:
    """All that these sections of the dashboard ask."""
    return [asked(query) for one in sections for panel in DASHBOARD[one] for query in panel.queries]


def all_have_data(prometheus: Prometheus, queries: list[str]) -> None:
    """Within two minutes."""

    def without_data() -> list[str]:
        return [query for query in queries if not prometheus.values(query)]

    deadline = time.monotonic() + 120
    while without_data() and time.monotonic() < deadline:
        time.sleep(SCRAPE_S)
    assert without_data() == []
    print(f"{len(queries)} queries have data")


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
