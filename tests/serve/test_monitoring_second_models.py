"""Panels and alerts of a cascade, of a model on trial and of drift, asked of a real Prometheus.

It takes four minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from launched import Run
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
from typer.testing import CliRunner

from deployments.cli import app
from scripts.bench.process import wait_until
from scripts.monitoring.prometheus import Prometheus
from scripts.monitoring.rules import rules

pytestmark = TRIAL

ORDINARY: list[tuple[str, Any]] = [("/classify", {"text": [GOOD, BAD, GOOD]})]
FLOOD: list[tuple[str, Any]] = [("/classify", {"text": [LONG] * 16, "timeout_ms": 20_000})]


@pytest.fixture(scope="module")
def run(
    demo_model: Path,
    make_tiny_model: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """A tiny model that is never sure answers first, and the demo model is on trial beside itself;
    its baseline is of the very texts that come."""
    folder = tmp_path_factory.mktemp("service")
    model = Path(shutil.copytree(demo_model, folder / "model"))
    reference = folder / "reference.csv"
    reference.write_text("\n".join(["text", *[GOOD, BAD, GOOD] * 300]), encoding="utf-8")
    made = CliRunner().invoke(app, ["baseline", str(model), "--data", str(reference)])
    assert made.exit_code == 0, made.output
    tiny = make_tiny_model(id2label={0: "negative", 1: "positive"})

    def change(application: dict[str, Any]) -> None:
        application["args"]["model"]["id"] = str(model)
        application["args"]["cascade"] = {"model": {"id": str(tiny)}, "threshold": 1.0}
        application["args"]["shadow"] = {"model": {"id": str(model)}, "share": 1.0}
        for name in ("FirstClassifier", "ShadowClassifier"):
            beside = {"name": name, "num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
            application["deployments"].append(beside)

    with serving(folder, change) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with watching(run, tmp_path_factory.mktemp("prometheus")) as there:
        yield there


@pytest.fixture(scope="module")
def ordinary(run: Run) -> Iterator[None]:
    with load(url(run), 2, 0.2, ORDINARY):
        yield


@pytest.mark.usefixtures("ordinary")
def test_their_panels_and_rules_have_data_and_nothing_fires(prometheus: Prometheus) -> None:
    records = [name for name in rules("record") if "drift" in name or "shadow" in name]
    all_have_data(prometheus, [*queries_of(SECOND_MODELS), *records])
    assert prometheus.values("application:rayclassify_shadow_agreement:ratio1h") == [1.0]
    # While the first numbers come, a replica that has sent none counts as missing.
    wait_until(lambda: not prometheus.firing(), "the alerts of the start to clear", 120.0)


@pytest.mark.usefixtures("ordinary")
def test_a_large_model_that_can_not_keep_up_fires_and_clears(
    run: Run, prometheus: Prometheus
) -> None:
    with ExitStack() as stack:
        stack.enter_context(load(url(run), 32, 0.0, FLOOD))
        fires_and_clears(prometheus, {"RayclassifyCascadeDegraded"}, lambda: None, stack.close)
