"""`rayclassify check`: everything wrong in a config, before it is deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.cli.exit_codes import WRONG
from deployments.config.check import ConfigError, Problem, check_config, load_config

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The Serve YAML.")]
DEFAULT_CONFIG = Path("serve_config.yaml")


def check(
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="A list of {path, message} instead of lines; with --prove, certificates."
        ),
    ] = False,
    config_only: Annotated[
        bool,
        typer.Option(
            "--config-only", help="Don't look at this machine: the service runs on others."
        ),
    ] = False,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove", help="Load the model, hold it to transformers' own, print a certificate."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With --prove: show what libraries print.")
    ] = False,
) -> None:
    """Check a config: unknown keys, wrong values, numbers that contradict each other, and the
    files that it names on this machine.

    Prints `ok`, or one line for each problem with its place and the cure.

    Example: `rayclassify check --prove serve_config.yaml`
    """
    loaded, problems = read_config(config)
    if not problems and not config_only:
        from deployments.launch.preflight import check_machine

        problems = check_machine(loaded)
    if problems:
        if as_json:
            listed = [{"path": problem.path, "message": problem.message} for problem in problems]
            _print_json(listed)
        else:
            print_problems(problems)
        raise typer.Exit(WRONG)
    if prove:
        _prove(loaded, as_json, verbose)
    elif as_json:
        _print_json([])
    else:
        typer.echo("ok")


def _prove(config: dict[str, Any], as_json: bool, verbose: bool) -> None:
    from deployments.cli.prove import prove_models

    certificates, refusals = prove_models(config, verbose)
    if as_json:
        _print_json([one.to_json() for one in certificates])
    else:
        for certificate in certificates:
            typer.echo("\n".join(certificate.lines()))
    for refusal in refusals:
        typer.echo(refusal, err=True)
    if refusals:
        raise typer.Exit(WRONG)
    if not certificates:
        typer.echo("ok: no model to prove")


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def read_config(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The config and what is wrong with it; a file that is no config counts as one problem."""
    try:
        config = load_config(path)
    except ConfigError as exc:
        return {}, [Problem("", str(exc))]
    return config, check_config(config)


def checked_config(path: Path) -> dict[str, Any]:
    """The config; where something is wrong with it, says so and ends the programme."""
    config, problems = read_config(path)
    if problems:
        print_problems(problems)
        raise typer.Exit(WRONG)
    return config


def print_problems(problems: list[Problem]) -> None:
    typer.echo("\n".join(map(str, problems)), err=True)
