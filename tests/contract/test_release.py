"""What a release publishes: built as the workflow builds it, checked, installed by pip."""

from __future__ import annotations

import http.server
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from launched import serve

from deployments import __version__ as installed_version
from deployments.launch import ports
from rayclassify_client import __version__
from scripts.build_release import PROJECTS, build, check, contents, notes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """A wheel and an sdist of each package."""
    folder = tmp_path_factory.mktemp("dist")
    return {name: build(name, folder / name) for name in PROJECTS}


def wheel(files: list[Path]) -> Path:
    (found,) = [file for file in files if file.suffix == ".whl"]
    return found


@pytest.mark.parametrize("name", PROJECTS)
def test_both_files_of_a_package_pass_the_check(name: str, released: dict[str, list[Path]]) -> None:
    assert [file.suffix for file in released[name]] == [".whl", ".gz"]
    assert [problem for file in released[name] for problem in check(name, file)] == []


def changed(file: Path, folder: Path, path: str, data: bytes) -> Path:
    """A copy of a wheel with one file more, or another one in its place."""
    copy = folder / file.name
    members = {**contents(file), path: data}
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return copy


METADATA = f"rayclassify_client-{__version__}.dist-info/METADATA"


@pytest.mark.parametrize(
    ("path", "old", "new", "problem"),
    [
        ("tests/test_a.py", "", "1", "holds tests/test_a.py"),
        ("rayclassify_client/.env", "", "KEY=1", "holds rayclassify_client/.env"),
        ("conftest.py", "", "1", "holds conftest.py at its top"),
        ("rayclassify_client/big.bin", "", "0" * 60_000, "60000 are the limit"),
        (METADATA, "Apache-2.0", "MIT", "License-Expression: MIT"),
        (METADATA, f"Version: {__version__}", "Version: 9.9.9", "Version: 9.9.9"),
        (METADATA, "Version: ", "Version: not-", "version"),
        (METADATA, "Developers", "Astronauts", "which no index knows"),
        (METADATA, "text/markdown", "text/plain", "text/plain"),
    ],
)
def test_the_check_finds_a_mistake_of_each_kind(
    released: dict[str, list[Path]], tmp_path: Path, path: str, old: str, new: str, problem: str
) -> None:
    good = wheel(released["rayclassify-client"])
    text = contents(good).get(path, b"").decode().replace(old, new) if old else new
    bad = changed(good, tmp_path, path, text.encode())
    assert problem in " ".join(check("rayclassify-client", bad))


def test_a_wheel_without_its_licence_is_found(
    released: dict[str, list[Path]], tmp_path: Path
) -> None:
    good = wheel(released["rayclassify-client"])
    bad = tmp_path / good.name
    with zipfile.ZipFile(bad, "w") as archive:
        for path, content in contents(good).items():
            if not path.endswith("LICENSE"):
                archive.writestr(path, content)
    assert "holds no LICENSE" in " ".join(check("rayclassify-client", bad))


def test_the_same_checkout_gives_the_same_bytes(
    released: dict[str, list[Path]], tmp_path: Path
) -> None:
    again = build("rayclassify-client", tmp_path / "dist")
    assert [one.read_bytes() for one in again] == [
        one.read_bytes() for one in released["rayclassify-client"]
    ]


@pytest.mark.parametrize("name", PROJECTS)
def test_the_sdist_builds_the_same_wheel(
    name: str, released: dict[str, list[Path]], tmp_path: Path
) -> None:
    (sdist,) = [file for file in released[name] if file.suffix == ".gz"]
    for path, content in contents(sdist).items():
        file = tmp_path / "source" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"]
    subprocess.run(command, cwd=tmp_path / "source", check=True, capture_output=True)
    (built,) = (tmp_path / "dist").iterdir()
    assert contents(built) == contents(wheel(released[name]))


# One version, said once.


def test_the_version_is_said_in_one_place() -> None:
    for folder in PROJECTS.values():
        pyproject = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
        assert "version" not in pyproject["project"]
        assert pyproject["project"]["dynamic"] == ["version"]
        path = folder / pyproject["tool"]["hatch"]["version"]["path"]
        assert path.resolve() == ROOT / "client" / "rayclassify_client" / "__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert installed_version in (__version__, "0.0.0")  # 0.0.0: this checkout is not installed


def test_both_packages_have_the_same_licence() -> None:
    assert (ROOT / "client" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_releases_notes_are_its_part_of_the_changelog() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\nb\n\n## [0.1.0] - 2026-12-01\n\n### Added\n\n- a\n"
    assert notes(f"{text}\n## [0.0.9]\n\nold\n", "0.1.0") == "### Added\n\n- a\n"
    assert notes(text, "0.1.0") == "### Added\n\n- a\n"
    assert notes(text, "0.2.0") == ""


def test_a_tag_of_another_version_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/build_release.py", "--tag", "v9.9.9", "--output", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"the tag is v9.9.9, the version {__version__}" in done.stderr


# Installed into an empty environment, by pip and with its dependencies. No network: the wheels of
# the dependencies are made of what is installed here.


def packed(name: str, folder: Path) -> Path:
    """A wheel of a pure Python distribution of this environment."""
    distribution = importlib.metadata.distribution(name)
    files = {
        str(one): one.locate().read_bytes()
        for one in distribution.files or ()
        if not str(one).startswith("..") and "__pycache__" not in str(one)
        if one.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    }
    (info,) = {path.split("/")[0] for path in files if ".dist-info/" in path}
    record = "".join(f"{path},,\n" for path in files)  # hashes may be left out
    normal = re.sub(r"[-.]+", "_", distribution.metadata["Name"])
    wheel_file = folder / f"{normal}-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel_file, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return wheel_file


HTTPX = ("httpx", "httpcore", "h11", "anyio", "certifi", "idna", "typing_extensions")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """Answers every request as the service answers a good text; its URL."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            label = "positive" if asked["text"] else "negative"
            scores = {"label": label, "score": 0.9, "scores": {label: 0.9}}
            body = json.dumps({**scores, "tokens": 3, "truncated": False}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def empty_environment(folder: Path) -> Path:
    """The Python of a new environment that holds pip alone."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def test_the_client_asks_from_an_empty_environment(
    released: dict[str, list[Path]], tmp_path: Path, service: str
) -> None:
    for name in HTTPX:
        packed(name, tmp_path)
    python = empty_environment(tmp_path / "venv")
    offline = ["--isolated", "--no-index", "--find-links", tmp_path, "--disable-pip-version-check"]
    subprocess.run(
        [python, "-m", "pip", "install", "-q", *offline, wheel(released["rayclassify-client"])],
        cwd=tmp_path,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    code = (
        "import sys; from rayclassify_client import Client, __version__\n"
        "with Client(sys.argv[1]) as client: print(__version__, client.classify('好').label)"
    )
    done = subprocess.run(
        [python, "-I", "-c", code, service],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{__version__} positive\n"
    listed = subprocess.run(
        [python, "-m", "pip", "--isolated", "list", "--format=json"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {one["name"].replace("-", "_") for one in json.loads(listed.stdout)}
    assert names - {"pip", "setuptools"} <= {"rayclassify_client", *HTTPX}


@pytest.mark.trials  # 2 GB and minutes: an index must be reached
@pytest.mark.timeout(1500)
def test_the_service_answers_from_an_empty_environment(
    released: dict[str, list[Path]], tmp_path: Path
) -> None:
    python = empty_environment(tmp_path / "venv")
    install = [python, "-m", "pip", "install", "-q", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*install, wheel(released["rayclassify"])], cwd=tmp_path, check=True)
    lacking = subprocess.run([python, "-m", "pip", "check"], check=False, capture_output=True)
    assert lacking.returncode == 0, lacking.stdout
    # Neither this checkout nor what is installed beside it.
    apart = {"PYTHONPATH": "", "PATH": f"{python.parent}:/usr/bin:/bin"}
    command = python.with_name("rayclassify")

    def said(*arguments: str | Path) -> str:
        done = subprocess.run(
            arguments,
            cwd=tmp_path,
            env={**os.environ, **apart},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said(command, "--version") == f"rayclassify {__version__}\n"
    assert "classify" in said(command, "--help")
    code = (
        "from deployments.local import LocalClassifier\n"
        "with LocalClassifier({}) as local: print(local.classify('质量很好，会再来')['label'])"
    )
    assert said(python, "-I", "-c", code) == "positive\n"
    port = ports.next_port()
    text = (ROOT / "serve_config.yaml").read_text("utf-8").replace("port: 8000", f"port: {port}")
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    said(command, "check", "config.yaml")
    url = f"http://localhost:{port}"
    apart["RAYCLASSIFY_METRICS_PORT"] = str(ports.next_port())
    with serve(tmp_path / "config.yaml", command=[str(command)], **apart) as run:
        assert run.wait_for("Ready:") == f"Ready: {url}"
        answered = said(command, "classify", "质量很好，会再来", "--url", url, "--json")
        assert json.loads(answered)["label"] == "positive"
        code = (
            "import requests, sys; print(requests.post(sys.argv[1] + '/classify', "
            "json={'text': '这是一个示例文本'}).json()['label'])"
        )
        assert said(python, "-I", "-c", code, url) in ("positive\n", "negative\n")
        assert run.interrupt() == 0, run.lines


# Imports a script where only some distributions can be imported; the rest might as well be absent.
ALONE = """
import importlib.metadata, sys
script, allowed = sys.argv[1], set(sys.argv[2:])
tops = importlib.metadata.packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        owners = {one.lower().replace("_", "-") for one in tops.get(name.partition(".")[0], ())}
        if owners and not owners & allowed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
__import__(script)
"""


@pytest.mark.parametrize(("workflow", "job"), [("release", "build"), ("image", "try")])
def test_a_script_runs_with_what_its_workflow_installs(workflow: str, job: str) -> None:
    jobs = yaml.safe_load((ROOT / f".github/workflows/{workflow}.yml").read_text("utf-8"))["jobs"]
    runs = [step["run"] for step in jobs[job]["steps"] if "run" in step]
    (install,) = [run for run in runs if run.startswith("pip install")]
    (script,) = [found for run in runs for found in re.findall(r"scripts/(\w+)\.py", run)]
    allowed = {"rayclassify", "rayclassify-client", *with_dependencies(set(install.split()[4:]))}
    command = [sys.executable, "-c", ALONE, f"scripts.{script}", *allowed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def with_dependencies(names: set[str]) -> set[str]:
    """Distributions with all that they ask for, extras left out."""
    found: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        found.add(name.lower().replace("_", "-"))
        asked = [one for one in importlib.metadata.requires(name) or [] if "extra ==" not in one]
        needed = {re.split(r"[^\w.-]", one)[0].lower().replace("_", "-") for one in asked}
        left |= {one for one in needed - found if installed(one)}
    return found


def installed(name: str) -> bool:
    """Whether it is here; what another platform needs isn't."""
    return any(importlib.metadata.distributions(name=name))
