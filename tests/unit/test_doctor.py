"""`rayclassify doctor` on this machine, and on machines that are pretended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.cli.doctor import find_gpus, machine_facts
from deployments.config import ray_inside
from deployments.engines import cpu, machine
from deployments.model.cache import CACHE_DIR_ENV

ROOT = Path(__file__).resolve().parents[2]


def doctor(*args: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *args])


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv(CACHE_DIR_ENV, str(tmp_path / "cache"))

    def write(model: str = "models/demo", **engine: Any) -> str:
        loaded = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
        args = loaded["applications"][0]["args"]
        args["model"]["id"] = model
        args["engine"] |= {"device": "cpu", **engine}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(loaded), encoding="utf-8")
        return str(path)

    return write


def test_it_tells_what_the_machine_has_without_measuring(config: Callable[..., str]) -> None:
    result = doctor(config(), "--no-measure")
    assert result.exit_code == 0, result.output
    for word in ("cpu model", "cores", "memory", "gpus", "proxy", "torch", "nanotoken"):
        assert word in result.output
    assert "not measured yet. The first start chooses among: torch float32" in result.output
    assert "GFLOP/s" not in result.output


def test_json_has_the_same_and_nothing_else_on_stdout(config: Callable[..., str]) -> None:
    found = json.loads(doctor(config(), "--no-measure", "--json").stdout)
    assert found["machine"]["cpu"]["usable_cpus"] >= 1
    assert found["machine"]["packages"]["torch"]
    assert found["engine"]["rows"] == []


def test_what_it_measures_the_next_start_takes(
    config: Callable[..., str], make_tiny_model: Callable[..., Path]
) -> None:
    path = config(model=str(make_tiny_model()), name="torch", num_threads=1)
    found = json.loads(doctor(path, "--json").stdout)
    assert found["peak_gflops"]["cpu float32"] > 0.1
    first = found["engine"]["rows"][0]
    assert first["verdict"] == "chosen"
    chosen = f"torch {first['dtype']}"
    later = doctor(path, "--no-measure").output
    assert f"{chosen}: measured earlier, and the next start takes it" in later
    assert "set name: torch and dtype:" in later


def test_a_wrong_config_is_said_as_check_says_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("applications: 3")
    result = doctor(str(path))
    assert result.exit_code == 2
    assert "applications" in result.output


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"device": "cuda:7"}, "torch sees"),
        ({"device": "cpu", "name": "none"}, "answers without a model"),
        ({"name": "torch", "dtype": "float32"}, "all that the config allows here; not measured"),
    ],
)
def test_engines_that_the_config_names(
    config: Callable[..., str], engine: dict[str, str], message: str
) -> None:
    result = doctor(config(**engine), "--no-measure")
    assert message in " ".join(result.output.split())
    assert result.exit_code == (1 if "cuda:7" in engine.values() else 0)


def test_a_model_that_is_not_there_is_exit_code_1(config: Callable[..., str]) -> None:
    result = doctor(config(model="./no/such/model"), "--no-measure")
    assert result.exit_code == 1
    assert "no model in './no/such/model'" in result.output


def test_a_ray_that_nobody_has_read_is_warned_of(
    config: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_inside, "RAY", "2.59")
    told = " ".join(doctor(config(name="none"), "--no-measure").output.split())
    assert "what we rely on inside it was read in 2.59" in told


def test_features_are_read_as_the_kernel_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "CPUINFO", info)
    assert cpu.cpu_features() == ()
    info.write_text("model name\t: A CPU\nflags\t\t: fpu avx2 amx_int8 avx512f\n")
    assert cpu.cpu_model() == "A CPU"
    assert cpu.cpu_features() == ("avx2", "avx512f", "amx_int8")


def test_facts_are_plain_values() -> None:
    json.dumps(machine_facts())


def test_a_driver_that_hangs_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang() -> int:
        raise subprocess.TimeoutExpired("nvidia-smi", 30)

    monkeypatch.setattr(machine, "gpu_count", hang)
    (told,) = find_gpus()["torch_sees"]
    assert "nvidia-smi" in told


def test_each_model_of_a_cascade_has_an_engine(
    config: Callable[..., str], demo_model: Path
) -> None:
    path = Path(config(dtype="float32", name="torch"))
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    (application,) = loaded["applications"]
    application["args"]["cascade"] = {"model": {"id": str(demo_model)}}
    first = {"name": "FirstClassifier", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
    application["deployments"].append(first)
    path.write_text(yaml.safe_dump(loaded), encoding="utf-8")
    told = json.loads(doctor(str(path), "--no-measure", "--json").stdout)
    assert told["beside"][str(demo_model)] == told["engine"]
