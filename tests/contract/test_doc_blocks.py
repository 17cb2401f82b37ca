"""What a page shows fits: YAML into serve_config.yaml, commands to the scripts.

tests/serve/test_pages.py runs the Python and the curls; test_readme.py knows `rayclassify`, `make`
and every link.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.config.check import check_config
from deployments.settings import Settings
from deployments.user_config import USER_CONFIGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    ROOT / "k8s/README.md",
    ROOT / "client/README.md",
    *(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "log"),
]
# Programs that are not ours. What is new must be looked at: does everybody have it?
KNOWN = {
    "aws", "cp", "curl", "docker", "eksctl", "export", "gcloud", "git", "grep", "haproxy", "head",
    "helm", "jq", "kind", "kubectl", "minikube", "npm",
    "npx", "openssl", "pip-audit", "ray", "serve", "source", ".", "tail", "zcat", "watch",
}  # fmt: skip
OURS = {"rayclassify", "make", "python", "pip"}


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (str(page.relative_to(ROOT)), block)
        for page in PAGES
        for block in re.findall(
            rf"(?ms)^```{language}\n(.*?)^```", page.read_text(encoding="utf-8")
        )
    ]


YAML, BASH = blocks("yaml"), blocks("bash")


def whole(fragment: Any) -> dict[str, Any]:
    """serve_config.yaml with the fragment where its names say that it belongs."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    app = config["applications"][0]
    if isinstance(fragment, list):
        for one in fragment:
            (there,) = (found for found in app["deployments"] if found["name"] == one["name"])
            there.update(one)
        return config
    if "scrape_configs" in fragment:  # Prometheus' own
        return config
    for key, value in fragment.items():
        if key in Settings.model_fields:
            app["args"][key] = value
        elif key == "deployments":
            there = {one["name"]: one for one in app["deployments"]}
            app["deployments"] = [*(there | {one["name"]: one for one in value}).values()]
        elif key in app:
            app[key] = value
        elif key == "user_config":
            assert any(set(value) <= set(model.model_fields) for model in USER_CONFIGS.values())
        else:
            assert key in config, f"{key} has no place in serve_config.yaml"
            config[key] = value
    return config


@pytest.mark.parametrize(("page", "block"), YAML, ids=[page for page, _ in YAML])
def test_yaml_fits_into_the_config(page: str, block: str) -> None:
    problems = check_config(whole(yaml.safe_load(block)))
    # A model or a file that only the reader has.
    left = [str(one) for one in problems]
    assert [one for one in left if not re.search(r"/models/|\.ya?ml|directory", one)] == []


def commands(block: str) -> list[list[str]]:
    """The simple commands of a block, word by word, without comments and redirections."""
    found: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.commenters, lexer.whitespace_split = "#", True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                found, words = ([*found, words] if words else found), []
            else:
                words.append(word)
    return [
        [word for word in words if not re.fullmatch(r"\w+=.*", word) or word != words[0]]
        for words in found
    ]


@pytest.mark.parametrize(("page", "block"), BASH, ids=[page for page, _ in BASH])
def test_commands_are_there(page: str, block: str) -> None:
    for words in commands(block):
        name = words[0] if words else ""
        if name == "python" and words[1].startswith("scripts/"):
            script = ROOT / words[1]
            package = {"benchmark": "bench", "train_demo": "demo"}.get(script.stem)
            source = script.read_text(encoding="utf-8") + "".join(
                module.read_text(encoding="utf-8")
                for module in ((ROOT / "scripts" / package).rglob("*.py") if package else ())
            )
            for option in (word.split("=")[0] for word in words if word.startswith("--")):
                spelt = option in source or option[2:].replace("-", "_") in source
                assert spelt, f"{page}: {words[1]} has no {option}"
        assert name in KNOWN | OURS or not name or "=" in name, f"{page}: what is {name}?"
