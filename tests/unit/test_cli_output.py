"""What the commands print, for people and for programmes; completion; exit codes."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from api.stand_in import LIMITS, LengthClassifier
from served import serving
from typer.testing import CliRunner, Result

import deployments.cli
from deployments.cli import app, exit_codes
from deployments.cli.exit_codes import EXIT_CODES
from deployments.http.app import create_app
from deployments.pipeline.errors import EmptyText, NotReady

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(scope="module")
def service() -> LengthClassifier:
    service = LengthClassifier()
    service.bad_texts = {"bad": EmptyText("text, as they say, is empty. Send one.")}
    return service


@pytest.fixture(scope="module")
def url(service: LengthClassifier) -> Iterator[str]:
    with serving(create_app(service, LIMITS)) as address:
        yield address


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


def test_classify_as_csv(url: str) -> None:
    result = run("classify", 'a "good", one', "bad", "--url", url, "--format", "csv")
    assert result.exit_code == 1
    assert list(csv.reader(io.StringIO(result.stdout))) == [
        ["text", "label", "score", "error"],
        ['a "good", one', "long", "1.0", ""],
        ["bad", "", "", "text, as they say, is empty. Send one."],
    ]


def test_classify_prints_json_lines_where_nobody_looks_and_a_table_where_asked(url: str) -> None:
    lines = run("classify", "好", "坏", "--url", url).stdout.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["好", "坏"]
    assert run("classify", "好", "坏", "--url", url, "--json").stdout.splitlines() == lines
    table = run("classify", "好", "--url", url, "--format", "table").stdout
    assert table.split()[:3] == ["text", "label", "score"]


def test_two_formats_at_once_are_refused(url: str) -> None:
    for command in (("classify", "好"), ("info",)):
        result = run(*command, "--url", url, "--json", "--format", "csv")
        assert result.exit_code == 2
    assert run("classify", "a.csv", "--text-column", "t", "-o", "b", "--json").exit_code == 2


def shown_on_a_terminal(*args: str, **variables: str) -> bytes:
    parent, child = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    env |= {"TERM": "xterm-256color", "COLUMNS": "100", **variables}
    command = [sys.executable, "-m", "deployments.cli", *args]
    subprocess.run(command, stdin=child, stdout=child, stderr=child, env=env, check=False)
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 65_536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    return shown


def test_colours_are_for_terminals_and_for_those_who_want_them(url: str) -> None:
    colour = re.compile(rb"\x1b\[[0-9;]*3[0-7]m|\x1b\[38;")
    asked = ("classify", "a long enough text", "--url", url)
    assert colour.search(shown_on_a_terminal(*asked))
    without = shown_on_a_terminal(*asked, NO_COLOR="1")
    assert b"long" in without
    assert not colour.search(without)
    command = [sys.executable, "-m", "deployments.cli", *asked, "--format", "table"]
    piped = subprocess.run(command, capture_output=True, check=True)
    assert b"\x1b" not in piped.stdout


def test_info_in_three_formats(url: str) -> None:
    assert json.loads(run("info", "--url", url, "--json").stdout)["labels"] == ["long", "short"]
    rows = list(csv.reader(io.StringIO(run("info", "--url", url, "--format", "csv").stdout)))
    assert rows == [["field", "value"], ["model", "length"], ["labels", "long, short"]]
    lines = [line.split(maxsplit=1) for line in run("info", "--url", url).stdout.splitlines()]
    assert [[name, value.strip()] for name, value in lines] == rows[1:]


def test_info_names_what_stands_below_a_name() -> None:
    from deployments.cli.info import flat

    found = {"versions": {"torch": "2"}, "update": None, "dialects": ["tei", "oip"], "n": 3}
    assert dict(flat(found)) == {"versions.torch": "2", "dialects": "tei, oip", "n": "3"}


def test_info_of_a_service_that_is_not_there_or_not_ready(url: str) -> None:
    away = run("info", "--url", f"{url}/elsewhere")
    assert (away.exit_code, len(away.stderr.strip().splitlines())) == (3, 1)
    assert "--url" in away.stderr

    class Loading(LengthClassifier):
        async def info(self, certificate: bool = False) -> dict[str, object]:
            raise NotReady("The model is loading. Try again soon.", 2.0)

    with serving(create_app(Loading(), LIMITS)) as loading:
        result = run("info", "--url", loading)
    assert result.exit_code == 1
    assert "The model is loading" in result.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_can_complete_commands_and_values(shell: str) -> None:
    def completed(*words: str) -> str:
        env = {
            **os.environ,
            "_RAYCLASSIFY_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": " ".join(words),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        command = [sys.executable, "-m", "deployments.cli"]
        return subprocess.run(command, capture_output=True, text=True, env=env).stdout

    assert "classify" in completed("rayclassify", "cl")
    assert "vllm" in completed("rayclassify", "bench", "http://a", "--dialect", "vl")


def commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    for one, command in getattr(group, "commands", {}).items():
        if command.hidden:  # another name of a command that is listed
            continue
        below = dict(commands(command, f"{name}{one} "))
        yield from below.items() if below else [(f"{name}{one}", command)]


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_command_says_what_its_exit_codes_mean() -> None:
    assert COMMANDS.keys() == EXIT_CODES.keys()
    for name, command in COMMANDS.items():
        assert command.epilog == exit_codes.epilog(name)


def test_exit_codes_have_one_home() -> None:
    """No module has numbers of its own: what it ends with stands in exit_codes."""
    for path in Path(deployments.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Exit":
                assert not any(isinstance(arg, ast.Constant) for arg in node.args), path
