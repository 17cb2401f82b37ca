"""The Dockerfile, read as text: no Docker is needed, and none is started.

It holds the numbers and files that a build needs; tests/e2e/test_image.py builds it and runs it.
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

from rayclassify_client import __version__

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


def stages() -> list[list[tuple[str, str]]]:
    """Instructions from each FROM to the next; the last stage is the image."""
    found: list[list[tuple[str, str]]] = []
    for name, value in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, value))
    return found


def arguments() -> dict[str, str]:
    """Defaults of the build arguments; an ARG without one takes what stands above."""
    given = (value.partition("=") for name, value in instructions() if name == "ARG")
    return {name: default for name, equals, default in given if equals}


def copied() -> list[str]:
    """Paths that COPY takes from the checkout."""
    found: list[str] = []
    for name, value in instructions():
        if name == "COPY" and "--from=" not in value:
            found += [w for w in shlex.split(value) if not w.startswith("--")][:-1]
    return found


def installs() -> list[str]:
    return [v for name, v in instructions() if name == "RUN" and re.search(r"pip .*\binstall\b", v)]


def locked(package: str) -> str:
    """The version that constraints.txt pins."""
    (found,) = re.findall(rf"^{package}==(\S+)", LOCK.read_text(), re.MULTILINE)
    return str(found)


def test_ray_has_one_version_everywhere() -> None:
    assert locked("ray") == CLUSTER["rayVersion"] == version("ray")
    # Ray's own image, which the comment offers as a base, has it too.
    assert re.findall(r"rayproject/ray:([\d.]+)", TEXT) == [locked("ray")]


def test_all_stages_have_one_base_with_a_python_that_the_package_takes() -> None:
    bases = {value.split()[0] for name, value in instructions() if name == "FROM"}
    assert bases == {"${BASE}"}
    (python,) = re.findall(r"^python:3\.(\d+)-", arguments()["BASE"])
    minimum = int(PROJECT["requires-python"].removeprefix(">=3."))
    assert int(python) >= minimum


def test_the_pods_run_the_image_of_this_version() -> None:
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        image = group["template"]["spec"]["containers"][0]["image"]
        assert image == f"{PROJECT['name']}:{__version__}"


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


def test_the_image_holds_no_sources_beside_the_wheel() -> None:
    last = [value for name, value in stages()[-1] if name == "COPY" and "--from=" not in value]
    assert last == ["serve_config.yaml serve_config.gpu.yaml ./"]


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
    """Or takes the wheel that an earlier stage built, and nothing else."""
    found = installs()
    assert len(found) == 3
    assert all(
        "--constraint constraints.txt" in one or "--no-index --no-deps /dist/*.whl" in one
        for one in found
    )


def test_what_pip_is_told_of_indexes_stays_out_of_the_layers() -> None:
    """A secret mount leaves nothing; a build argument with a password stays in history."""
    fetching = [one for one in installs() if "--no-index" not in one]
    assert len(fetching) == 2
    assert all("--mount=type=secret,id=pip,target=/etc/pip.conf" in one for one in fetching)
    assert [name for name in arguments() if "TOKEN" in name or "PASSWORD" in name] == []


def test_the_image_has_what_kuberays_probes_run() -> None:
    """bash and grep come with Debian, wget does not."""
    (adds,) = [value for name, value in stages()[-1] if "apt-get install" in value]
    assert "wget" in adds
    assert "rm -rf /var/lib/apt/lists/*" in adds


def test_the_image_is_not_root_and_starts_a_command_that_exists() -> None:
    last = stages()[-1]
    users = [value for name, value in last if name == "USER"]
    security = CLUSTER["headGroupSpec"]["template"]["spec"]["securityContext"]
    # In numbers: the kubelet can't look a name up when it checks runAsNonRoot.
    assert users[-1] == f"{security['runAsUser']}:{security['runAsGroup']}" == "1000:100"
    after = last[max(i for i, one in enumerate(last) if one[0] == "USER") :]
    assert "RUN" not in {name for name, _ in after}
    (command,) = [value for name, value in last if name == "CMD"]
    program, verb, config = yaml.safe_load(command)
    assert program in PROJECT["scripts"]
    assert verb == "serve"
    assert config in copied()


def test_the_image_says_what_it_is() -> None:
    (labels,) = [value for name, value in stages()[-1] if name == "LABEL"]
    said = set(re.findall(r"org\.opencontainers\.image\.([\w.]+)=", labels))
    assert said >= {"title", "licenses", "version", "revision", "base.name"}
    assert f'licenses="{PROJECT["license"]}"' in labels
