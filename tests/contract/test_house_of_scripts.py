"""The house of scripts/ and tests/trials: short modules, listed, that import in one direction."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("scripts", "tests/trials")
    for path in (ROOT / folder).rglob("*.py")
}
MAX_LINES = 400


def imported(name: str, path: Path) -> set[str]:
    """The modules of these folders that one imports, also within functions."""
    found: set[str] = set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    # A package's own list of modules is no dependency of what lies in it.
    return {one for one in found & MODULES.keys() if MODULES[one].name != "__init__.py"}


def test_no_module_imports_itself_in_a_circle() -> None:
    TopologicalSorter({name: imported(name, path) for name, path in MODULES.items()}).prepare()


def test_no_module_is_longer_than_the_ceiling() -> None:
    lengths = {name: path.read_text("utf-8").count("\n") for name, path in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize(
    "folder",
    ["scripts/bench", "scripts/demo", "scripts/kubernetes", "scripts/scale", "tests/trials"],
)
def test_a_folder_lists_its_modules(folder: str) -> None:
    doc = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text("utf-8"))) or ""
    there = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    there |= {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    assert set(re.findall(r"^- (\w+): ", doc, re.MULTILINE)) == there
