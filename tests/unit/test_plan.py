"""`rayclassify plan`: enough and no more, refused with a number where it can't be had."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from deployments.cli import app
from deployments.config.check import check_config, load_config
from deployments.planning.gpus import GPUS, SHAPES, estimated
from deployments.planning.plan import MAX_BATCH_TOKENS, Hardware, Impossible, Plan, Wish, plan
from deployments.planning.service_times import MEASURED, Traffic
from deployments.planning.simulation import Fixed, Pool, Simulation
from deployments.scaling.policy import FollowWork, Work

ROOT = Path(__file__).parents[2]
WISH = ["--rps", "50000", "--p99-ms", "100", "--tokens-mean", "80", "--gpu", "l4"]


def planned(rps: float = 5_000, p99_ms: float = 100, gpu: str = "l4", **changes: Any) -> Plan:
    tokens = changes.pop("tokens", 80)
    device = estimated(GPUS[gpu], SHAPES["bert-base"], tokens, MAX_BATCH_TOKENS)
    wish = Wish(rps, p99_ms / 1_000, Traffic(tokens), **changes)
    return plan(wish, device, Hardware(GPUS[gpu].per_node), MEASURED)


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["plan", *args])


def test_more_load_never_needs_fewer_replicas() -> None:
    before = (0, 0, 0)
    for rps in np.geomspace(10, 2e6, 24):
        found = planned(float(rps), p99_ms=120).replicas
        now = (found.ingress, found.classifiers, found.postprocessors)
        assert all(b >= a for a, b in zip(before, now, strict=True)), (rps, before, now)
        before = now


def test_a_tighter_p99_never_needs_fewer_classifiers_nor_does_a_slower_gpu() -> None:
    by_p99 = [planned(p99_ms=ms).for_p99 for ms in (400, 200, 120, 80)]
    assert by_p99 == sorted(by_p99)
    by_gpu = [planned(p99_ms=200, gpu=gpu).for_p99 for gpu in ("h100", "a100", "l4", "t4")]
    assert by_gpu == sorted(by_gpu)
    assert by_gpu[0] < by_gpu[-1]


@pytest.mark.parametrize("gpu", ["l4", "h100"])
@pytest.mark.parametrize("rps", [300.0, 20_000.0, 300_000.0])
def test_a_plan_keeps_its_own_promise_in_the_simulation(rps: float, gpu: str) -> None:
    """For a minute at the peak; and with a tenth fewer Classifiers, or one, it is broken."""
    found = planned(rps, p99_ms=120, gpu=gpu)
    replicas = found.replicas
    pools = [
        Pool(n, Fixed()) for n in (int(replicas.ingress), found.for_p99, replicas.postprocessors)
    ]
    outcome = Simulation(
        pools, found.wish.traffic, MEASURED, found.device, slo_s=found.wish.p99_s
    ).run(np.full(60, rps))
    assert outcome.attainment >= 0.985  # of a thousand samples
    assert outcome.refused.max() == 0
    if found.for_p99 > 1:
        n = min(found.for_p99 - 1, int(0.9 * found.for_p99))
        fewer = [Pool(pools[0].replicas), Pool(n), Pool(replicas.postprocessors)]
        outcome = Simulation(
            fewer, found.wish.traffic, MEASURED, found.device, slo_s=found.wish.p99_s
        ).run(np.full(60, rps))
        assert outcome.attainment < 0.99


def test_the_policy_holds_what_the_plan_says_that_it_holds() -> None:
    found = planned(20_000, p99_ms=120)
    for name, busy, needed in (
        ("Tokenizer", found.steady.ingress_busy, found.replicas.ingress),
        ("Classifier", found.steady.classifier_busy, found.for_p99),
    ):
        follow = FollowWork(found.target_busy[name])
        work = Work(busy * needed, 0.0, 1)
        wanted = follow.wanted(work, 0.0, target=0, running=1, look_back_s=0)
        assert wanted >= needed - 1e-6


def test_p99_below_one_pass_is_refused_with_the_number_and_the_cure() -> None:
    with pytest.raises(Impossible) as told:
        planned(p99_ms=3)
    message = str(told.value)
    assert "p99 of 3 ms can't be had" in message
    lone_ms = float(re.findall(r"takes ([\d.]+) ms", message)[0])
    assert lone_ms > 3
    assert "faster GPU" in message
    answer = run(*WISH[:2], "--p99-ms", "3", *WISH[4:])
    assert answer.exit_code == 1
    assert "p99 of 3 ms can't be had" in answer.stderr


def test_p99_that_only_an_idle_service_misses_is_refused_too() -> None:
    found = planned(p99_ms=200)
    lone = MEASURED.hops_s[len(MEASURED.hops_s) // 2] + found.device.pass_s(80)
    with pytest.raises(Impossible, match="all but idle"):
        planned(p99_ms=lone * 1_000 + 0.5)


def test_the_yaml_passes_our_own_check_and_says_what_the_table_says(tmp_path: Path) -> None:
    answer = run(*WISH, "--price-per-hour", "2", "--json")
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    config = yaml.safe_load(facts["config"])
    assert check_config(config) == []
    for deployment in config["applications"][0]["deployments"]:
        counts = facts["replicas"][deployment["name"]]
        scaling = deployment["autoscaling_config"]
        assert (scaling["min_replicas"], scaling["max_replicas"]) == (counts["min"], counts["max"])
    assert facts["speed"] == "estimate"
    assert facts["price_per_million_texts"] == pytest.approx(
        facts["nodes"]["gpu"] * 2 / (50_000 * 3_600) * 1e6
    )
    groups = facts["worker_groups"]
    assert groups["gpu"]["replicas"] == facts["nodes"]["gpu"]
    assert all(g["minReplicas"] <= g["replicas"] <= g["maxReplicas"] for g in groups.values())


def test_a_config_of_ones_own_keeps_its_comments_and_all_else(tmp_path: Path) -> None:
    out = tmp_path / "plan.yaml"
    base = ROOT / "serve_config.gpu.yaml"
    answer = run(*WISH, "--quiet-rps", "5000", "--config", str(base), "-o", str(out))
    assert answer.exit_code == 0, answer.output
    config, before = load_config(out), load_config(base)
    assert check_config(config) == []
    assert config["controller_options"] == before["controller_options"]
    assert "# launches kernels" in out.read_text()
    classifier = config["applications"][0]["deployments"][1]
    scaling = classifier["autoscaling_config"]
    assert scaling["min_replicas"] < scaling["max_replicas"]
    assert scaling["policy"]["policy_kwargs"]["fed_by"] == "Tokenizer"
    assert classifier["user_config"]["target_p99_ms"] == 100


def test_a_model_of_ones_own_is_the_one_that_the_config_serves(demo_model: Path) -> None:
    def served(*args: str) -> str:
        facts = json.loads(run(*WISH, "--json", *args).stdout)
        app = yaml.safe_load(facts["config"])["applications"][0]
        return str(app["args"]["model"]["id"])

    assert served("--model", str(demo_model)) == str(demo_model)
    gpu = str(ROOT / "serve_config.gpu.yaml")
    theirs = load_config(Path(gpu))["applications"][0]["args"]["model"]["id"]
    assert served("--model", str(demo_model), "--config", gpu) == theirs


def test_a_measured_speed_takes_the_estimates_place() -> None:
    slow, fast = (
        json.loads(run(*WISH, "--json", "--tokens-per-s", n, "--pass-start-ms", "2").stdout)
        for n in ("100000", "400000")
    )
    assert slow["speed"] == fast["speed"] == "as measured"
    assert slow["pass_start_ms"] == 2
    assert slow["classifiers_for_p99"] > 2 * fast["classifiers_for_p99"]
    on_cpus = run(
        "--rps", "50", "--p99-ms", "500", "--tokens-mean", "80", "--gpu", "cpu",
        "--tokens-per-s", "4000",
    )  # fmt: skip
    assert on_cpus.exit_code == 0, on_cpus.output
    assert "num_gpus" not in on_cpus.stdout
    assert "groupName gpu" not in on_cpus.stdout


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        (["--gpu", "tpu"], 2, "one of t4, l4"),
        (["--gpu", "cpu"], 2, "rayclassify tune"),
        (["--model", "nowhere"], 2, "config.json"),
        (["--quiet-rps", "60000"], 2, "more than --rps"),
        (["--rps", "0"], 2, "0.001"),
        (["--rps", "inf"], 2, "100000000"),
        (["--rps", "nan"], 2, "100000000"),
        (["--tokens-mean", "inf"], 2, "1000000"),
        (["--gpu", "cpu", "--tokens-per-s", "1e308"], 2, "1000000000"),
        (["--output", "no/such/folder/plan.yaml"], 2, "No such file"),
        (["--cpu-price-per-hour", "1"], 2, "--price-per-hour too"),
        (
            ["--gpu", "cpu", "--tokens-per-s", "9000", "--price-per-hour", "1"],
            2,
            "--cpu-price-per-hour",
        ),
        (["--p99-ms", "-5"], 2, "0.001"),
        (["--config", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["--spare", "-1"], 2, "0"),
        (["--texts-per-request", "5000"], 1, "can't be had"),
    ],
)
def test_wrong_options_end_with_their_code_and_a_word(
    changes: list[str], code: int, word: str
) -> None:
    answer = run(*WISH, *changes)
    assert answer.exit_code == code, answer.output
    assert word in " ".join(answer.stderr.replace("│", " ").split())


def test_limits_that_nobody_measured_are_warned_of() -> None:
    assert planned(1_000, p99_ms=200).warnings == ()
    told = " ".join(planned(3e6, p99_ms=200, gpu="t4").warnings)
    assert "Ray issue 60680" in told
    one_node = planned(20_000, p99_ms=200, gpu="h100")
    assert one_node.gpu_nodes == 1
    assert "on one node" in " ".join(one_node.warnings)


def test_the_same_wish_gets_the_same_plan() -> None:
    first, second = (planned(7_777, p99_ms=150) for _ in range(2))
    assert replace(first, steady=second.steady) == second


@pytest.mark.parametrize("rps", ["0.001", "0.01", "1"])
@pytest.mark.parametrize("gpu", ["h100", "t4"])
def test_hardly_any_traffic_needs_the_least_that_there_is(rps: str, gpu: str) -> None:
    answer = run("--rps", rps, "--p99-ms", "100", "--tokens-mean", "80", "--gpu", gpu, "--json")
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert facts["classifiers_for_p99"] == 1
    assert facts["replicas"]["Tokenizer"] == {"min": 2, "max": 2}


def test_nights_without_traffic_can_be_planned_for() -> None:
    answer = run(*WISH, "--quiet-rps", "0.001", "--json")
    assert answer.exit_code == 0, answer.output
    counts = json.loads(answer.stdout)["replicas"]["Classifier"]
    assert counts["min"] == 2 < counts["max"]


def test_on_cpus_each_node_has_the_cpu_nodes_price() -> None:
    answer = run(
        "--rps", "50", "--p99-ms", "500", "--tokens-mean", "80", "--gpu", "cpu",
        "--tokens-per-s", "4000", "--cpu-price-per-hour", "0.5", "--json",
    )  # fmt: skip
    facts = json.loads(answer.stdout)
    assert facts["price_per_hour"] == pytest.approx(0.5 * sum(facts["nodes"].values()))
