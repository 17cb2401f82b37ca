"""The README says what is true: settings, files, links and commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from deployments.settings import USER_CONFIGS, Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def row(name: str, default: object, description: str | None) -> str:
    shown = yaml.safe_dump(default).removesuffix("...\n").strip()
    return f"| `{name}` | `{shown}` | {description or ''} |"


def settings_rows() -> list[str]:
    rows = []
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        for name, leaf in field.annotation.model_fields.items():
            rows.append(row(f"{section}.{name}", leaf.default, leaf.description))
    return rows


def user_config_rows() -> list[str]:
    return [
        row(f"{deployment}: {name}", leaf.default, leaf.description)
        for deployment, model in USER_CONFIGS.items()
        for name, leaf in model.model_fields.items()
    ]


def test_the_configuration_table_is_the_settings_own() -> None:
    head = ["", "| `user_config:` | default | |", "|---|---|---|"]
    expected = "\n".join([*settings_rows(), *head, *user_config_rows()])
    assert expected in README, f"the table should read:\n{expected}"


def test_every_setting_is_described() -> None:
    models = [field.annotation for field in Settings.model_fields.values()]
    for model in [*models, *USER_CONFIGS.values()]:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(target: str) -> None:
    assert target.startswith("http") or (ROOT / target).exists()


def test_every_file_of_the_tree_exists() -> None:
    (tree,) = re.findall(r"```text\n(serve_config.*?)```", README, re.DOTALL)
    opened: list[str] = []
    named = 0
    for line in tree.splitlines():
        opened = opened[: (len(line) - len(line.lstrip())) // 2]
        folder = ROOT.joinpath(*opened)
        for token in line.split():
            if not re.fullmatch(r"[\w.*/]+(/|\.py|\.yaml|\.md)", token):
                break
            assert list(folder.glob(token.rstrip("/"))), f"{token} is not in {folder.name}/"
            named += 1
        if line.split()[0].endswith("/"):
            opened.append(line.split()[0].rstrip("/"))
    assert named > 15


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake (\w+)", README))
    assert {"serve", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_runs_the_readmes_own_test_command() -> None:
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
