"""docs/scale.md says what docs/scale.json has, and the planner plans with what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.planning.service_times import MEASURED
from scripts.bench.store import Store
from scripts.scale import compare, page, scenario

ROOT = Path(__file__).parents[2]
MODES = Store(ROOT / "docs" / "scale.json").modes
BENCHMARK = Store(ROOT / "docs" / "benchmark.json").modes


def test_the_page_has_the_tables_of_the_json() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert page.rendered(text, page.blocks(MODES, MEASURED)) == text


def test_the_planner_plans_with_what_was_measured() -> None:
    """A Tokenizer without a model behind it, which one core can't do faster."""
    growth = BENCHMARK["growth"]["replicas"]
    alone = {"Classifier": 1, "Tokenizer": 1}
    (run,) = [one for one in growth if one["kind"] == "none" and one["replicas"] == alone]
    assert 1 / MEASURED.ingress_s(1) == pytest.approx(run["requests_per_s"], rel=0.01)
    none = next(
        run for run in BENCHMARK["service"]["shapes"]["none"]["runs"] if run["connections"] == 1
    )
    median_ms = 1e3 * MEASURED.hops_s[len(MEASURED.hops_s) // 2]
    assert median_ms == pytest.approx(none["p50_ms"], rel=0.01)
    assert 1e3 * MEASURED.hops_s[-1] == pytest.approx(none["p99_ms"], rel=0.01)
    fitted = compare.fitted(MODES["fixed"]["runs"])
    assert MEASURED.ingress_text_s == pytest.approx(fitted.ingress_text_s, rel=0.01)
    assert MEASURED.postprocess_call_s == pytest.approx(fitted.postprocess_call_s, rel=0.01)


def test_the_simulation_of_the_real_runs_says_again_what_the_json_has() -> None:
    """And errors are no larger than these: a change that makes the model worse is seen here."""
    trials = Store(ROOT / "docs" / "reliability.json").modes["gpus"]["figures"]
    again, was = compare.compared_recorded(trials), MODES["compared"]["recorded"]
    for now, then in zip(again["stretches"], was["stretches"], strict=True):
        assert now["replica_s"]["simulated"] == pytest.approx(
            then["replica_s"]["simulated"], rel=0.05
        )
        assert abs(now["replica_s"]["error"]) <= 0.15
        assert abs(now["p50"]["error"]) <= 0.4
    scaling = compare.compared_scaling(MODES["scaling"], MEASURED)
    assert abs(scaling["replica_s"]["error"]) <= 0.15
    assert scaling["off_by"] <= 1.0


def test_what_the_parts_took_is_found_again_in_runs() -> None:
    """Of runs made up from known times, with a core that is never quite at rest."""

    def run(requests: int, texts: int, **how: float) -> dict[str, Any]:
        cpu = {
            "Tokenizer": 0.02 * 10 + requests * (0.0005 + texts * 0.00008),
            "Postprocessor": 0.01 * 10 + requests * 0.0009,
            "haproxy": requests * 0.00005,
            "elapsed": 10.0,
        }
        quantiles = [0.0232 + 0.005 + k / 10_000 for k in range(100)]
        return {"texts": texts, "all_requests": requests, "cpu_s": cpu, "classifiers": 8,
                "quantiles_s": quantiles, **how}  # fmt: skip

    runs = [run(n, compare.TEXTS, share=0.5) for n in (50, 100, 300)]
    runs += [run(50, 1, rate_per_s=5.0), run(800, 1, rate_per_s=80.0)]
    found = compare.fitted(runs)
    assert found.ingress_request_s == pytest.approx(0.0005, rel=0.02)
    assert found.ingress_text_s == pytest.approx(0.00008, rel=0.02)
    assert found.postprocess_call_s == pytest.approx(0.0009, rel=0.02)
    assert found.hops_s[0] == pytest.approx(0.005, rel=0.02)


def test_the_day_ends_at_a_million_and_is_the_same_each_time() -> None:
    load = scenario.trace()
    assert load.max() == pytest.approx(scenario.PEAK_PER_S)
    assert len(load) * scenario.STEP_S == 86_400
    ways = MODES["scenario"]["ways"]
    assert [way["name"] for way in ways] == [
        way.name for way in scenario.ways(scenario.planned(MEASURED))
    ]
    # More that is held at all times answers more within the aim.
    attained = [way["attainment"] for way in ways]
    assert attained[0] <= attained[1] <= attained[2] + 0.002
    assert attained[2] <= attained[3]
