"""`rayclassify tune`: the choice, the search, the YAML it writes, and one real small run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner
from typer.testing import Result as CliResult

from deployments.cli import app
from deployments.config.check import check_config, load_config
from deployments.pipeline.types import Encoded
from deployments.settings import EngineSettings, ModelSettings
from deployments.tuning.choice import Result, Setup, better_half, choose, pareto_front
from deployments.tuning.config import tuned
from deployments.tuning.measure import Workload
from deployments.tuning.plot import plot
from deployments.tuning.search import batch_sizes, layouts, setups

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "serve_config.yaml"


def result(texts_per_s: float, p99_ms: float, size: int = 1_024) -> Result:
    return Result(Setup("float32", 1, 2, size), texts_per_s, p99_ms / 2, p99_ms, 100)


def run(*args: str, stdin: str | None = None) -> CliResult:
    return CliRunner().invoke(app, ["tune", *args], input=stdin)


RESULTS = st.lists(
    st.builds(result, st.integers(1, 30).map(float), st.integers(1, 30).map(float)),
    min_size=1,
    max_size=20,
)


@given(RESULTS)
def test_the_front_holds_what_nothing_beats_and_something_beats_all_else(
    results: list[Result],
) -> None:
    front = pareto_front(results)
    figures = [(r.texts_per_s, -r.p99_ms) for r in front]
    for one in results:
        beaten = any(
            other.texts_per_s >= one.texts_per_s
            and other.p99_ms <= one.p99_ms
            and (other.texts_per_s, other.p99_ms) != (one.texts_per_s, one.p99_ms)
            for other in results
        )
        assert ((one.texts_per_s, -one.p99_ms) in figures) != beaten
    assert figures == sorted(set(figures))


@given(RESULTS, st.none() | st.integers(1, 30).map(float))
def test_the_better_half_holds_the_choice(results: list[Result], target_ms: float | None) -> None:
    kept = better_half(results, target_ms)
    assert choose(results, target_ms).setup in kept
    assert len(kept) >= len(results) // 2


def test_the_most_throughput_within_the_target_is_chosen() -> None:
    results = [result(100, 50), result(200, 90), result(300, 400)]
    assert choose(results, 100.0).texts_per_s == 200


def test_where_nothing_is_within_the_target_the_fastest_answers_are_chosen() -> None:
    assert choose([result(100, 50), result(300, 400)], 10.0).p99_ms == 50


def test_without_a_target_the_knee_is_chosen_not_the_last_per_cent_of_throughput() -> None:
    assert choose([result(20, 40), result(100, 50), result(101, 500)], None).p99_ms == 50


@pytest.mark.parametrize("n_cores", [1, 2, 3, 4, 6, 8, 48, 64])
def test_replicas_and_threads_never_want_more_cores_than_there_are(n_cores: int) -> None:
    found = layouts(n_cores)
    assert all(threads * replicas <= n_cores for threads, replicas in found)
    assert (1, n_cores) in found
    assert (n_cores, 1) in found
    assert len(set(found)) == len(found)


def test_of_batch_sizes_that_hold_all_that_waits_only_the_smallest_is_tried() -> None:
    assert batch_sizes(1_500) == [256, 512, 1_024, 2_048]
    assert batch_sizes(10) == [256]
    assert batch_sizes(1_000_000)[-1] == 16_384


def test_every_engine_is_tried_in_every_layout() -> None:
    texts = Encoded(np.zeros(40, np.int32), np.full(2, 20, np.int32))
    load = Workload(ModelSettings(), EngineSettings(), texts, 64, None)
    found = setups(["float32", "int8"], layouts(2), load)
    assert len(found) == 2 * (len(batch_sizes(1_280)) + len(batch_sizes(640)))


def test_the_yaml_says_what_was_chosen_and_keeps_all_else_comments_too() -> None:
    setup = Setup("int8", 1, 2, 2_048)
    text = CONFIG.read_text(encoding="utf-8")
    written = tuned(text, "classify", setup, 250.0, n_cpus=2)
    before, after = text.splitlines(), written.splitlines()
    changed = {line.split(":")[0].strip() for line in set(after) - set(before)}
    assert changed == {
        "name",
        "dtype",
        "num_threads",
        "min_replicas",
        "max_surge_percent",
        "max_batch_tokens",
        "target_p99_ms",
    }
    assert [line.partition("#")[2] for line in before if "#" in line] == [
        line.partition("#")[2] for line in after if "#" in line
    ]
    application = yaml.safe_load(written)["applications"][0]
    assert application["args"]["engine"]["name"] == "torch"
    classifier = application["deployments"][1]
    assert classifier["autoscaling_config"]["max_replicas"] == 2
    assert classifier["user_config"]["target_p99_ms"] == 250.0


@pytest.mark.parametrize("n_cpus", [1, 2, 4, 16])
@pytest.mark.parametrize("config", ["serve_config.yaml", "serve_config.gpu.yaml"])
def test_the_yaml_passes_the_check_and_ray_finds_room_for_it(
    config: str, n_cpus: int, tmp_path: Path
) -> None:
    path = tmp_path / "tuned.yaml"
    for threads, replicas in layouts(n_cpus):
        setup = Setup("float32", threads, replicas, 16_384)
        text = (ROOT / config).read_text(encoding="utf-8")
        path.write_text(tuned(text, "classify", setup, None, n_cpus), encoding="utf-8")
        loaded = load_config(path)
        assert check_config(loaded) == []
        if config == "serve_config.yaml":
            asked = sum(
                d["ray_actor_options"]["num_cpus"] * d["autoscaling_config"]["max_replicas"]
                for d in loaded["applications"][0]["deployments"]
            )
            assert asked <= n_cpus + 1e-9


def test_a_config_that_says_little_gets_what_it_needs(tmp_path: Path) -> None:
    text = (
        "applications:\n"
        "  - import_path: deployments.app:build\n"
        "    deployments:\n"
        "      - name: Classifier\n"
        "        num_replicas: 1\n"
    )
    written = yaml.safe_load(tuned(text, "default", Setup("float32", 1, 3, 512), 9.0, n_cpus=8))
    application = written["applications"][0]
    assert application["args"]["engine"] == {"name": "torch", "dtype": "float32", "num_threads": 1}
    (classifier,) = application["deployments"]
    assert classifier["num_replicas"] == 3
    assert classifier["user_config"] == {"max_batch_tokens": 512, "target_p99_ms": 9.0}


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_plot_is_drawn(kind: str, tmp_path: Path) -> None:
    results = [result(100, 50, 256), result(200, 90, 512), result(150, 300, 1_024)]
    path = tmp_path / f"plot.{kind}"
    plot(results, results[1], 100.0, "demo", path)
    assert path.stat().st_size > 1_000


def write_config(path: Path, **engine: str) -> Path:
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["applications"][0]["args"]["engine"].update(engine)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_one_real_run_on_the_demo_model(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", name="torch", dtype="float32")
    texts = tmp_path / "texts.txt"
    texts.write_text("质量很好，会再来\n太差了，再也不买\n" * 30, encoding="utf-8")
    output = tmp_path / "tuned.yaml"
    ran = run(
        *(str(texts), str(config), "--output", str(output), "--cores", "1"),
        *("--connections", "4", "--budget-s", "2", "--plot", str(tmp_path / "plot.svg")),
    )
    assert ran.exit_code == 0, ran.output
    assert "chosen" in ran.stdout
    assert "torch" in ran.stdout
    assert check_config(load_config(output)) == []
    assert (tmp_path / "plot.svg").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "the input is empty"), ("\n \n", "the input is empty")],
)
def test_no_text_is_an_error(text: str, words: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(text, encoding="utf-8")
    ran = run(str(texts), str(CONFIG))
    assert ran.exit_code == 1
    assert words in ran.stderr


def test_a_file_that_is_not_there_is_named() -> None:
    ran = run("nowhere.txt", str(CONFIG))
    assert ran.exit_code == 2
    assert "nowhere.txt is no file" in ran.stderr


def test_a_wrong_config_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", nam="torch")
    ran = run("-", str(config), stdin="好\n")
    assert ran.exit_code == 2
    assert "nam: unknown key" in ran.stderr


def test_a_config_without_a_model_has_nothing_to_tune(tmp_path: Path) -> None:
    ran = run("-", str(write_config(tmp_path / "config.yaml", name="none")), stdin="好\n")
    assert ran.exit_code == 2
    assert "nothing to tune" in ran.stderr


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["applications"][0]["args"]["model"]["id"] = "./no/model/here"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    ran = run("-", str(path), stdin="好\n")
    assert ran.exit_code == 1
    assert "no model in './no/model/here'" in ran.stderr
    assert "1 texts say little" in ran.stderr


@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_a_place_that_is_not_there_is_told_before_anything_is_measured(option: str) -> None:
    ran = run("-", str(CONFIG), option, "no/such/place.svg", stdin="好\n")
    assert ran.exit_code == 2
    assert "no/such is no directory" in ran.stderr


def test_a_plot_of_an_unknown_kind_is_refused_at_once() -> None:
    ran = run("-", str(CONFIG), "--plot", "plot.doc", stdin="好\n")
    assert ran.exit_code == 2
    assert "neither .svg nor .png" in ran.stderr
