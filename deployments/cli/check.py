"""`rayclassify check`: everything wrong in a config, before it is deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.config_check import ConfigError, Problem, check_config, load_config

BAD_CONFIG = 2
"""Exit code: the config is wrong."""

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The Serve YAML.")]
DEFAULT_CONFIG = Path("serve_config.yaml")


def check(
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of {path, message} instead of lines.")
    ] = False,
) -> None:
    """Check a config: unknown keys, wrong values, numbers that contradict each other.

    Prints `ok`, or one line for each problem with its place and the cure. Exit code 0 or 2.

    Example: `rayclassify check serve_config.yaml`
    """
    _, problems = read_config(config)
    if as_json:
        listed = [{"path": problem.path, "message": problem.message} for problem in problems]
        typer.echo(json.dumps(listed, ensure_ascii=False, indent=2))
    elif problems:
        print_problems(problems)
    else:
        typer.echo("ok")
    if problems:
        raise typer.Exit(BAD_CONFIG)


def read_config(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The config and what is wrong with it; a file that is no config counts as one problem."""
    try:
        config = load_config(path)
    except ConfigError as exc:
        return {}, [Problem("", str(exc))]
    return config, check_config(config)


def print_problems(problems: list[Problem]) -> None:
    for problem in problems:
        place = f"{problem.path}: " if problem.path else ""
        typer.echo(f"{place}{problem.message}", err=True)
