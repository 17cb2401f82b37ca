"""The README says what is true, and on all pages files, links and commands exist."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from rich.console import Console

from deployments import installing
from deployments.cli import app as command_line
from deployments.cli.serve import _announce
from deployments.config.check import check_config
from deployments.http.openapi import openapi_document
from deployments.launch.plan import read_plan
from deployments.model.reading import load_tokenizer
from deployments.pipeline.tokenize import TextEncoder
from deployments.pipeline.types import Options, TextInput
from deployments.settings import LimitSettings, ModelSettings, Settings
from rayclassify_client import __version__
from scripts.bench.readme import put_into, readme_block
from scripts.bench.report import SECTIONS
from scripts.bench.report import page as benchmark_page

ROOT = Path(__file__).resolve().parents[2]

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        *ROOT.glob("*.md"),
        ROOT / "k8s" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
}
MAX_WORDS = 1_200
ERRORS_ON = ("README.md", "docs/http.md")
README = PAGES["README.md"]


def code_lines(page: str) -> list[str]:
    return "\n".join(re.findall(r"```bash\n(.*?)```", PAGES[page], re.DOTALL)).splitlines()


def anchors(page: str) -> set[str]:
    """What `#…` may name on a page: its headings, as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.*)", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("page", "target", "anchor"),
    sorted(
        (page, *link)
        for page in PAGES
        for link in set(re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", PAGES[page]))
    ),
)
def test_every_link_leads_somewhere(page: str, target: str, anchor: str) -> None:
    if target.startswith("http"):
        return
    path = (ROOT / page).parent.joinpath(target) if target else ROOT / page
    assert path.exists()
    if anchor:
        assert anchor in anchors(str(path.resolve().relative_to(ROOT)))


def test_a_stranger_reads_it_in_five_minutes() -> None:
    assert len(README.split()) <= MAX_WORDS


def test_the_first_code_is_the_promised_client_and_the_models_are_on_the_first_screen() -> None:
    language, code = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)[0]
    assert language == "python"
    promised = "requests.post('http://localhost:8000/classify', json={'text': '这是一个示例文本'})"
    assert f"{promised}.json()['label']" in code
    assert "(docs/models.md)" in "\n".join(README.splitlines()[:15])


def test_nothing_comes_from_an_index_that_has_it_not() -> None:
    for page in PAGES:
        for line in code_lines(page):
            assert not re.search(r"pip install .*rayclassify\[", line), page
    for module in (ROOT / "deployments").rglob("*.py"):
        assert not re.search(r"pip install .*rayclassify\[", module.read_text("utf-8")), module
    assert "pip install -e '.[jwt]'" in installing("jwt")
    assert "pip install '<wheel>[jwt]'" in installing("jwt")


def test_the_error_shown_is_what_a_caller_gets() -> None:
    shown_twice = [re.findall(r'^\{"error":.*', PAGES[page], re.MULTILINE) for page in ERRORS_ON]
    (shown,) = {line for lines in shown_twice for line in lines}
    assert all(len(lines) == 1 for lines in shown_twice)
    encoder = TextEncoder(load_tokenizer(ModelSettings()), 512)
    text = TextInput("好" * 600, options=Options(truncation=False))
    error = encoder.encode([text]).errors[0]
    request_id = json.loads(shown)["error"]["request_id"]
    answer = {"error": error.body(request_id)}
    assert shown == json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("page", ["README.md", "docs/http.md"])
def test_the_paths_named_are_routes(page: str) -> None:
    named = set(re.findall(r"`(?:GET |POST )?(/[a-z]+)`", PAGES[page]))
    assert {"/classify", "/health", "/ready", "/info"} <= named
    assert named <= {*openapi_document(LimitSettings())["paths"], "/docs"}


def test_the_line_to_paste_is_the_one_that_the_launcher_prints() -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    console = Console(record=True, width=200)
    _announce(replace(read_plan(config), host="127.0.0.1"), console)
    printed = {line.strip() for line in console.export_text().splitlines()}
    line = next(line for line in code_lines("README.md") if line.startswith("curl "))
    assert line in printed


@pytest.mark.parametrize(
    ("access", "asks"),
    [
        ({"keys_file": "keys.yaml"}, True),
        ({"jwt_jwks": "jwks.json", "jwt_issuer": "i", "jwt_audience": "a"}, True),
        ({"keys_file": "keys.yaml", "allow_anonymous": True}, False),
        ({}, False),
    ],
)
def test_the_line_to_paste_shows_a_key_where_one_is_asked_for(
    access: dict[str, Any], asks: bool
) -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text(encoding="utf-8"))
    config["applications"][0]["args"]["access"] |= access
    console = Console(record=True, width=200)
    _announce(read_plan(config), console)
    header = '-H "Authorization: Bearer $RAYCLASSIFY_KEY"'
    assert (header in console.export_text()) == asks


def test_every_command_and_option_exists() -> None:
    group = typer.main.get_command(command_line)
    used = 0
    for page in PAGES:
        for line in code_lines(page):
            if not line.startswith("rayclassify "):
                continue
            words = shlex.split(re.split("[>|]", line)[0], comments=True)
            command: Any = group
            for word in words[1:]:
                command = getattr(command, "commands", {}).get(word, command)
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            assert {word for word in words if word.startswith("-")} <= options, line
            assert command is not group or words[1].startswith("--"), line
            used += 1
    assert used > 1


def test_every_command_of_serve_exists() -> None:
    from ray.serve.scripts import cli

    used = set(re.findall(r"(?:`|=token |^)serve ([a-z]+)\b", README, re.MULTILINE))
    assert {"run"} <= used <= set(cli.commands)


PASTED = [
    (page, block)
    for page in ("README.md", "docs/configuration.md", "docs/access.md")
    for block in re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL)
]


@pytest.mark.parametrize(("page", "block"), PASTED, ids=[page for page, _ in PASTED])
def test_what_is_to_be_pasted_fits_where_it_is_pasted(page: str, block: str) -> None:
    """Over the block of the same name, or over its first lines where the page says so."""
    lines = (ROOT / "serve_config.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    pasted = block.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.startswith(pasted[0].rstrip()))
    indent = len(pasted[0]) - len(pasted[0].lstrip())
    ends = (i for i in range(at + 1, len(lines)) if re.match(rf" {{0,{indent}}}\S", lines[i]))
    end = at + 2 if page == "docs/access.md" else next(ends)
    config = yaml.safe_load("".join([*lines[:at], *pasted, *lines[end:]]))
    assert check_config(config) == []
    settings = Settings.model_validate(config["applications"][0]["args"])
    if page == "docs/access.md":
        assert settings.access.keys_file
    else:
        assert re.fullmatch(r"[0-9a-f]{40}", settings.model.revision or "")


def test_there_is_something_to_paste() -> None:
    assert {page for page, _ in PASTED} == {"README.md", "docs/configuration.md", "docs/access.md"}


def test_the_next_version_is_the_one_in_the_changelog() -> None:
    version = re.escape(__version__)
    assert re.search(rf"\[{version}\]|What will be {version}\.", PAGES["CHANGELOG.md"])


def test_every_file_of_the_tree_exists() -> None:
    (tree,) = re.findall(r"```text\n(serve_config.*?)```", README, re.DOTALL)
    named = 0
    folder = ROOT
    for line in tree.splitlines():
        first = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT
        elif len(line) - len(line.lstrip()) == 2:
            folder = ROOT / "deployments"
        if first.endswith("/"):
            folder /= first
        for token in (word.strip(",;:") for word in line.split()):
            if re.fullmatch(r"[\w./]+(/|\.py|\.yaml|\.md)", token):
                base = folder.parent if token == first and first.endswith("/") else folder
                assert (base / token).exists(), f"{token} is not in {base.name}/"
                named += 1
    assert named > 30


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make (\w+)|^make (\w+)", "\n".join(PAGES.values()), re.MULTILINE))
    targets = {one or other for one, other in targets}
    assert {"serve", "test", "check", "lint"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_runs_the_readmes_own_test_command() -> None:
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)


def test_the_figures_of_the_benchmark_are_the_measured_ones() -> None:
    modes = json.loads((ROOT / "docs" / "benchmark.json").read_text(encoding="utf-8"))["modes"]
    message = "run `python scripts/benchmark.py report`"
    assert put_into(README, readme_block(modes)) == README, message
    drawn = [name for name in SECTIONS if (ROOT / f"docs/images/{name}-light.svg").exists()]
    written = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert benchmark_page(modes, drawn) == written, message


def test_every_picture_has_a_light_and_a_dark_side() -> None:
    for text, folder in ((README, ROOT), (PAGES["docs/benchmark.md"], ROOT / "docs")):
        shown = re.findall(r'(?:src|srcset)="([^"]+)"', text)
        assert len(set(shown)) == 2 * text.count("<picture>")
        for path in shown:
            assert (folder / path).exists(), path
