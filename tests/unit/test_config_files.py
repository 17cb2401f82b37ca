"""What a look at this machine's files finds, before anything is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from deployments.config.check import load_config
from deployments.launch.preflight import check_files, check_machine
from deployments.model import files as model_files
from deployments.settings import ModelSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(tmp_path: Path, demo_model: Path) -> Path:
    return Path(shutil.copytree(demo_model, tmp_path / "model"))


def faults(model: Path, **settings: Any) -> list[str]:
    return list(model_files.faults(ModelSettings(id=str(model), **settings)))


def config(**args: Any) -> dict[str, Any]:
    loaded = load_config(ROOT / "serve_config.yaml")
    loaded["applications"][0]["args"] = args
    return loaded


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _shard(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))


def _pointer(model: Path, name: str = "model.safetensors") -> None:
    (model / name).write_text("version https://git-lfs.github.com/spec/v1\n")


def _dangle(model: Path, name: str) -> None:
    (model / name).unlink()
    (model / name).symlink_to(f"/nowhere/{name}")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "has no weights: expected"),
    "weights of another name": (
        lambda m: (m / "model.safetensors").rename(m / "weights.safetensors"),
        "weights.safetensors is there, which transformers doesn't look for",
    ),
    "a missing shard": (_shard, "lacks 1 of its 2 files of weights, model-00002-of-00002"),
    "half a file": (lambda m: _cut(m / "model.safetensors"), "is cut short: it has"),
    "a pointer": (_pointer, "is a git-lfs pointer, not the file: run `git lfs pull`"),
    "no header": (
        lambda m: (m / "model.safetensors").write_bytes(b"\x00" * 64),
        "begin with no header of safetensors",
    ),
    "a pickle": (
        lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"),
        "are pickled (pytorch_model.bin)",
    ),
    "no tokenizer": (
        lambda m: [(m / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")],
        "has no tokenizer: expected tokenizer.json",
    ),
    "half a tokenizer": (lambda m: _cut(m / "tokenizer.json"), "tokenizer.json of model"),
    "an empty tokenizer": (
        lambda m: (m / "tokenizer.json").write_text("[]"),
        "tokenizer.json: `model` holds null",
    ),
    "half a config": (lambda m: _cut(m / "config.json"), "can't read config.json"),
    "a wrong limit": (
        lambda m: (m / "tokenizer_config.json").write_text('{"model_max_length": -1}'),
        "`model_max_length` holds -1",
    ),
    "a wrong calibration": (
        lambda m: (m / "calibration.json").write_text('{"temperature": 0}'),
        "calibration.json: `temperature` holds 0",
    ),
    "an adapter": (lambda m: (m / "adapter_config.json").write_text("{}"), "Merge it first"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_fault_in_a_file_is_found_and_named(model: Path, case: str) -> None:
    breaks, expected = BROKEN[case]
    assert faults(model) == []
    breaks(model)
    (fault,) = faults(model)
    assert expected in fault


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_was_not_fetched_is_called_that(model: Path, name: str) -> None:
    _pointer(model, name)
    assert faults(model) == [
        f"{name} of model {str(model)!r} is a git-lfs pointer, not the file: run `git lfs pull` in "
        "its directory."
    ]
    _dangle(model, name)
    assert faults(model) == [
        f"{name} of model {str(model)!r} is a link to '/nowhere/{name}', where no file is. Copy "
        "the file itself there, or fetch the model again."
    ]


def test_a_pointer_that_nobody_reads_is_no_fault(model: Path) -> None:
    _pointer(model, "pytorch_model.bin")
    _pointer(model, "sentencepiece.bpe.model")
    assert faults(model) == []


def test_all_faults_are_named_at_once(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "tokenizer.json").unlink()
    (model / "calibration.json").write_text("{}")
    assert len(faults(model, revision="main")) == 4


def test_a_hub_id_is_known_only_once_it_is_fetched() -> None:
    assert list(model_files.faults(ModelSettings(id="org/some-model", revision="main"))) == []


def test_files_that_the_config_names_must_be_here(tmp_path: Path) -> None:
    problems = check_files(
        config(
            model={"id": str(tmp_path / "none")},
            access={"keys_file": str(tmp_path / "keys.json")},
            audit={"directory": str(tmp_path), "secret_file": str(tmp_path / "secret")},
        )
    )
    places = [problem.path.removeprefix("applications[0].args.") for problem in problems]
    assert places == ["model.id", "access.keys_file", "audit.secret_file"]
    assert "rayclassify keys new" in problems[1].message
    assert check_files(config(model={"id": str(tmp_path / "none")}, engine={"name": "none"})) == []
    assert check_files(config()) == []


def test_more_classifiers_than_cpus_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = config()
    (classifier,) = (
        d for d in asked["applications"][0]["deployments"] if d["name"] == "Classifier"
    )
    classifier["autoscaling_config"] |= {"min_replicas": 4_000, "initial_replicas": 4_000}
    (problem,) = check_machine(asked)
    assert "CPUs; this machine has" in problem.message
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")  # then they are the cluster's to give
    assert check_machine(asked) == []


def test_check_says_so_and_config_only_does_not(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config(access={"keys_file": "/nowhere/keys.json"})))
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    assert "keys_file: '/nowhere/keys.json' is no file on this machine" in result.output
    result = CliRunner().invoke(app, ["check", str(path), "--config-only"])
    assert (result.exit_code, result.output.strip()) == (0, "ok")


def test_looking_at_files_needs_no_torch() -> None:
    code = (
        "import sys; from deployments.launch.preflight import check_machine; "
        "from deployments.config.check import load_config; "
        "assert check_machine(load_config('serve_config.yaml')) == []; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_prove_prints_a_certificate_or_the_refusal(
    tmp_path: Path, make_tiny_model: Callable[..., Path]
) -> None:
    import yaml

    tiny = make_tiny_model(num_labels=3)
    engine = {"name": "torch", "dtype": "float32", "num_threads": 1}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config(model={"id": str(tiny)}, engine=engine)))
    result = CliRunner().invoke(app, ["check", "--prove", "--json", str(path)])
    assert result.exit_code == 0, result.output
    (certificate,) = json.loads(result.stdout)
    assert certificate["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert certificate["tokenizer_texts_equal"] > 150
    assert certificate["drift"] < 1e-3
    assert certificate["max_length"] == 64
    shown = CliRunner().invoke(app, ["check", "--prove", str(path)])
    assert "texts and pairs equal AutoTokenizer's" in shown.stdout

    file = tiny / "config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"position_embedding_type": "relative_key"})
    )
    result = CliRunner().invoke(app, ["check", "--prove", str(path)])
    assert result.exit_code == 2
    assert "applications[0].args.model: config.json: `position_embedding_type`" in result.output
