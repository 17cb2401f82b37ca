"""The Dockerfile, read as text: no Docker is needed, and none is started.

What it cannot show is that the image builds; it holds the numbers and files that a build needs.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
LOCK = ROOT / "constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RAY_SERVICE = yaml.safe_load((ROOT / "k8s/overlays/gpu/rayservice.yaml").read_text())
CLUSTER = RAY_SERVICE["spec"]["rayClusterConfig"]


def instructions() -> list[tuple[str, str]]:
    """Instruction and its arguments, continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def arguments() -> dict[str, str]:
    return dict(value.split("=", 1) for name, value in instructions() if name == "ARG")


def copied() -> list[str]:
    """Paths that COPY takes from the checkout."""
    found: list[str] = []
    for name, value in instructions():
        if name == "COPY":
            found += [w for w in shlex.split(value) if not w.startswith("--")][:-1]
    return found


def base_image() -> str:
    (image,) = [value for name, value in instructions() if name == "FROM"]
    for name, value in arguments().items():
        image = image.replace(f"${{{name}}}", value)
    return image


def locked(package: str) -> str:
    """The version that constraints.txt pins."""
    (found,) = re.findall(rf"^{package}==(\S+)", LOCK.read_text(), re.MULTILINE)
    return str(found)


def test_ray_has_one_version_everywhere() -> None:
    repository, tag = base_image().split(":")
    assert repository == "rayproject/ray"
    assert tag.split("-")[0] == CLUSTER["rayVersion"] == version("ray")
    assert locked("ray") == version("ray")


def test_the_base_image_has_a_python_that_the_package_takes() -> None:
    (python,) = re.findall(r"-py(\d)(\d+)-", base_image())
    minimum = tuple(int(n) for n in PROJECT["requires-python"].removeprefix(">=").split("."))
    assert tuple(int(n) for n in python) >= minimum


def test_the_pods_run_the_image_of_this_version() -> None:
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        image = group["template"]["spec"]["containers"][0]["image"]
        assert image == f"{PROJECT['name']}:{PROJECT['version']}"


@pytest.mark.parametrize("path", copied())
def test_what_is_copied_exists_and_is_sent_to_the_builder(path: str) -> None:
    assert (ROOT / path).exists(), f"{path} is copied by the Dockerfile and does not exist"
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    assert f"!{path}" in rules


def test_nothing_else_is_sent_to_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert {r.removeprefix("!") for r in rules if r.startswith("!")} == set(copied())


@pytest.mark.parametrize("path", ["deployments/__pycache__", "deployments/pipeline/a.pyc"])
def test_caches_stay_out(path: str) -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [r.removeprefix("**/") for r in rules if r.startswith("**/")]
    assert any(fnmatch.fnmatch(Path(path).name, pattern) for pattern in patterns)


def test_the_wheel_gets_what_it_is_built_from() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        PROJECT["readme"],
        *PROJECT["license-files"],
        *wheel["packages"],
        *wheel["force-include"],
    }
    assert needed <= set(copied())


def test_every_install_is_held_to_the_lock() -> None:
    installs = [v for name, v in instructions() if name == "RUN" and "pip install" in v]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)


def test_the_image_is_not_root_and_starts_a_command_that_exists() -> None:
    users = [value for name, value in instructions() if name == "USER"]
    assert users == ["ray"]
    (command,) = [value for name, value in instructions() if name == "CMD"]
    program, verb, config = yaml.safe_load(command)
    assert program in PROJECT["scripts"]
    assert verb == "serve"
    assert config in copied()
