"""The house: what stands where, and that each folder says so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "deployments"
ROOT_MODULES = {
    *(
        "__init__",
        "app",
        "tokenizer",
        "classifier",
        "postprocessor",
        "explainer",
        "settings",
        "model_settings",
        "user_config",
        "local",
    ),
}
FOLDERS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
MAX_LINES = 400


def test_the_root_holds_the_application_and_no_more() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_MODULES


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_folder_lists_its_modules_and_says_who_imports_it(folder: Path) -> None:
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    there = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    there |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert set(re.findall(r"^- (\w+): ", doc, re.MULTILINE)) == there
    assert "import" in doc.rpartition("\n\n")[2]


def test_no_module_is_longer_than_the_ceiling() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8").count("\n")
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_no_module_is_called_after_nothing() -> None:
    named = {path.stem for path in PACKAGE.rglob("*.py")}
    assert named & {"utils", "helpers", "misc", "common"} == set()
