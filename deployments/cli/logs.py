"""`rayclassify logs`: what all replicas on this machine say, now or in a run that has ended."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.deploy import Address, fail
from deployments.cli.exit_codes import DONE, UNREACHABLE
from deployments.launch.kept_logs import kept_runs
from deployments.launch.log_lines import LEVELS, Line, LogDirectory, Wanted

_RAYS_OWN = Path("/tmp/ray/session_latest/logs")  # noqa: S108
_TICK_S = 0.3

Level = StrEnum("Level", [(name, name) for name in LEVELS])  # type: ignore[misc]


def logs(
    run: Annotated[
        Path | None,
        typer.Argument(help="A kept run, by its directory or its name; else what runs now."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    deployment: Annotated[
        str,
        typer.Option(
            help="Only Tokenizer, Classifier, Postprocessor, or Serve's controller or proxy."
        ),
    ] = "",
    level: Annotated[
        Level | None, typer.Option(help="Only from this level up.", case_sensitive=False)
    ] = None,
    request_id: Annotated[str, typer.Option(help="Only of this x-request-id.")] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="The last so many; 0: all.", min=0)
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="An object a line.")] = False,
    kept: Annotated[bool, typer.Option("--list", help="List the kept runs instead.")] = False,
    address: Address = None,
) -> None:
    """What all replicas and Serve's own parts on this machine say, in the order of time.

    It reads the files of the Ray that runs here. Where none runs, it reads those of the last run
    that `rayclassify serve` kept. Logs hold no text that was classified.

    Example: `rayclassify logs --follow --level WARNING`
    """  # fmt: skip
    if kept:
        for path in kept_runs():
            typer.echo(path)
        return
    directory = _directory(run, address)
    typer.echo(f"{directory}:", err=True)
    reader = LogDirectory(directory)
    wanted = Wanted(deployment, str(level or ""), request_id)
    for line in deque(filter(wanted, reader.read()), maxlen=lines or None):
        _print(line, as_json)
    try:
        while follow:
            time.sleep(_TICK_S)
            for line in filter(wanted, reader.read()):
                _print(line, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(DONE) from None


def _directory(run: Path | None, address: str | None) -> Path:
    """Where Serve's files are, of the run that is meant."""
    if run is not None:
        named = run if run.exists() else next((k for k in kept_runs() if k.name == str(run)), run)
        found = _serve_of(named)
        if not found:
            fail(f"{run} holds no logs of Serve. `rayclassify logs --list` names the kept runs.")
        return found
    if (living := _living(address)) and (found := _serve_of(living)):
        return found
    # In a worker's pod a Ray runs without a dashboard.
    ended = list(filter(None, map(_serve_of, (_RAYS_OWN, *kept_runs()))))
    if not ended:
        fail("no Ray runs here, and no run was kept. Logs lie on the node of each replica.")
    return max(ended, key=lambda path: path.stat().st_mtime)


def _serve_of(place: Path) -> Path | None:
    for path in (place / "serve", *place.glob("ray/session_latest/logs/serve"), place):
        if any(path.glob("*.log")) and not (path / "serve.log").is_file():
            return path
    return None


def _living(address: str | None) -> Path | None:
    from deployments.deploying.clusters import NoCluster, find_cluster, local_rays

    try:
        cluster = find_cluster(address)
    except NoCluster as exc:
        if any(local_rays()):
            fail(str(exc), UNREACHABLE)
        return None
    return Path(cluster.log_dir) if cluster.log_dir else None


def _print(line: Line, as_json: bool) -> None:
    typer.echo(json.dumps(asdict(line), ensure_ascii=False) if as_json else str(line))
