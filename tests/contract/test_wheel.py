"""What `pip install .` installs: every worker of a cluster imports it, whatever its directory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = directory.glob("rayclassify-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as pip lays it into site-packages."""
    directory = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def test_it_holds_the_package_its_pages_and_the_demo_model(installed: Path) -> None:
    package = installed / "deployments"
    sources = {p.relative_to(ROOT) for p in (ROOT / "deployments").rglob("*.py")}
    assert {p.relative_to(installed) for p in package.rglob("*.py")} == sources
    assert (package / "py.typed").is_file()
    assert list((package / "http" / "static").rglob("*.js"))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (package / "models" / "demo" / name).is_file()


def test_it_holds_nothing_else(installed: Path) -> None:
    assert {path.name for path in installed.iterdir()} == {
        "deployments",
        "rayclassify_client",
        next(installed.glob("rayclassify-*.dist-info")).name,
    }


def test_it_names_the_command(installed: Path) -> None:
    entry_points = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "rayclassify = deployments.cli:app" in entry_points.read_text(encoding="utf-8")


def test_the_application_builds_from_any_directory(installed: Path, tmp_path: Path) -> None:
    """With the demo model found inside the package: no checkout is near."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from deployments.app import build\n"
        "from deployments.model.source import find_model\n"
        "build({})\n"
        "print(find_model('models/demo'))"
    )
    done = subprocess.run(
        # -I: neither this checkout nor the working directory are on the path.
        [sys.executable, "-I", "-c", code, str(installed)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str((installed / "deployments" / "models" / "demo").resolve())


def test_the_client_has_a_wheel_of_its_own_of_the_same_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT / "client",
        check=True,
        capture_output=True,
    )
    (built,) = tmp_path.glob("rayclassify_client-*.whl")
    with zipfile.ZipFile(built) as archive:
        inside = {name for name in archive.namelist() if ".dist-info" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        asked = archive.read(metadata).decode()
    package = ROOT / "client" / "rayclassify_client"
    assert inside == {
        f"rayclassify_client/{path.name}" for path in package.iterdir() if path.is_file()
    }
    needed = [line for line in asked.splitlines() if line.startswith("Requires-Dist")]
    assert [line for line in needed if "extra ==" not in line] == ["Requires-Dist: httpx>=0.28"]
    assert built.stat().st_size < 50_000
