"""The README and its neighbours say what is true: settings, errors, files, links and commands."""

from __future__ import annotations

import json
import re
import shlex
import socket
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from pydantic import BaseModel
from rich.console import Console

from deployments.cli import app as command_line
from deployments.cli.serve import _announce
from deployments.http.openapi import openapi_document
from deployments.http.schemas import components
from deployments.launch.ingress import choose_ingress
from deployments.launch.plan import read_plan
from deployments.launch.preflight import check_port
from deployments.model.reading import load_tokenizer
from deployments.pipeline import errors
from deployments.pipeline.tokenize import TextEncoder
from deployments.pipeline.types import Options, TextInput
from deployments.settings import (
    USER_CONFIGS,
    LimitSettings,
    ModelSettings,
    PostprocessorUserConfig,
    Settings,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from bench.readme import put_into, readme_block  # noqa: E402
from bench.report import SECTIONS  # noqa: E402
from bench.report import page as benchmark_page  # noqa: E402

PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "k8s/README.md",
        "docs/log.md",
        "docs/benchmark.md",
        "docs/operations.md",
        "docs/privacy.md",
    )
}
README = PAGES["README.md"]


def section(title: str) -> str:
    """What stands under a heading of the README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    ends = [i for i, line in enumerate(lines) if line.startswith("|---")]
    body = lines[ends[0] + 1 : ends[1] - 1] if len(ends) > 1 else lines[ends[0] + 1 :]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def code_lines(page: str) -> list[str]:
    return "\n".join(re.findall(r"```bash\n(.*?)```", PAGES[page], re.DOTALL)).splitlines()


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


@pytest.mark.parametrize(
    ("page", "target"),
    sorted({(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#]+)\)", PAGES[page])}),
)
def test_every_link_leads_somewhere(page: str, target: str) -> None:
    assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists()


def test_every_field_of_a_request_is_in_the_table_with_its_default() -> None:
    schema = components()["ClassifyRequest"]
    live = PostprocessorUserConfig()
    defaults = {
        name: "required" if name in schema["required"] else f"`{json.dumps(field['default'])}`"
        for name, field in schema["properties"].items()
    }
    # The service's own, where a request is silent.
    assert (defaults["text_pair"], defaults["top_k"], live.top_k) == ("`null`", "`null`", None)
    defaults |= {"text_pair": "none", "top_k": "all", "threshold": str(live.threshold)}
    rows = table(section("Ask"))
    assert [(field, default) for field, default, _ in rows] == [
        (f"`{name}`", default) for name, default in defaults.items()
    ]


def test_the_list_of_statuses_is_the_errors_own() -> None:
    told = {int(status) for status in re.findall(r"(?:^|· )(\d{3})\b", section("Ask"), re.M)}
    assert told == {
        cls.status
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.ServiceError)
    }


def test_the_error_shown_is_what_a_caller_gets() -> None:
    (shown,) = re.findall(r'^\{"error":.*', README, re.MULTILINE)
    encoder = TextEncoder(load_tokenizer(ModelSettings()), 512)
    text = TextInput("好" * 600, options=Options(truncation=False))
    error = encoder.encode([text]).errors[0]
    request_id = json.loads(shown)["error"]["request_id"]
    answer = {"error": error.body(request_id)}
    assert shown == json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def test_the_paths_named_are_routes() -> None:
    named = set(re.findall(r"`(?:GET |POST )?(/[a-z]+)`", README))
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


def test_the_gpu_config_asks_for_what_the_readme_says() -> None:
    config = yaml.safe_load((ROOT / "serve_config.gpu.yaml").read_text(encoding="utf-8"))
    plan = read_plan(config)
    assert f"asks for {plan.num_cpus:g} CPUs and {plan.num_gpus:g} GPU." in README


def test_every_command_and_option_exists() -> None:
    group = typer.main.get_command(command_line)
    used = 0
    for page in PAGES:
        for line in code_lines(page):
            if not line.startswith("rayclassify "):
                continue
            words = shlex.split(line.split(">")[0], comments=True)
            command: Any = group
            for word in words[1:]:
                command = getattr(command, "commands", {}).get(word, command)
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= options, line
            assert command is not group, line
            used += 1
    assert used > 1


def test_every_command_of_serve_exists() -> None:
    from ray.serve.scripts import cli

    used = set(re.findall(r"(?:`|=token |^)serve ([a-z]+)\b", README, re.MULTILINE))
    assert {"run"} <= used <= set(cli.commands)


def test_messages_to_look_up_are_those_that_appear() -> None:
    you_see = " ".join(row[0] for row in table(section("Troubleshooting")))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (finding,) = check_port("127.0.0.1", port)
    assert finding.message.startswith(f"port {port} is taken")
    assert str(choose_ingress(wanted=False)).startswith("HAProxy ingress: off")
    for message in ("port 8000 is taken", "HAProxy ingress: off", errors.NotReady.code):
        assert f"`{message}`" in you_see


def test_what_ray_says_is_what_ray_says() -> None:
    from ray._private.authentication import authentication_constants
    from ray.serve._private import default_impl, haproxy_templates

    you_see = " ".join(row[0] for row in table(section("Troubleshooting")))
    for module, message in (
        (authentication_constants, "no authentication token was found"),
        (default_impl, "No event loop running"),
        (haproxy_templates, "not found"),
    ):
        assert message in you_see
        assert message in Path(module.__file__).read_text(encoding="utf-8")


def test_your_own_model_is_a_valid_setting() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", section("Your own model"), re.DOTALL)
    assert Settings.model_validate(yaml.safe_load(block)["args"]).model.revision


def test_the_next_version_is_the_one_in_the_changelog() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = re.escape(project["version"])
    assert re.search(rf"\[{version}\]|What will be {version}\.", PAGES["CHANGELOG.md"])


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
            inside = folder / line.split()[0]  # where the line begins with a folder
            found = [path for base in (folder, inside) for path in base.glob(token.rstrip("/"))]
            assert found, f"{token} is not in {folder.name}/"
            named += 1
        if line.split()[0].endswith("/"):
            opened.append(line.split()[0].rstrip("/"))
    assert named > 15


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
