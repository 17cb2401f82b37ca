"""`rayclassify audit`: what an audit log says, and whether it was changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.cli.exit_codes import NO, WRONG, epilog

app = typer.Typer(no_args_is_help=True, help="Check an audit log, or find a text in it.")

SecretFile = Annotated[
    Path, typer.Option("--secret-file", help="The file that args.audit.secret_file names.")
]


@app.command(epilog=epilog("audit verify"))
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="All files, of any replicas, in any order.", exists=True, dir_okay=False
        ),
    ],
    secret_file: SecretFile,
    first: Annotated[
        int,
        typer.Option(
            min=0,
            help="The number that the oldest file begins with, where older ones were deleted in "
            "their turn. That line itself can't be checked then.",
        ),
    ] = 0,
) -> None:
    """Check that no line was changed, taken out or put in; needs args.audit.chain.

    Lines that are missing at the very end show nowhere.

    Example: `rayclassify audit verify audit-*.jsonl* --secret-file secret`
    """
    from deployments.privacy.audit import broken_at

    chains = _by_replica(files)
    if first and len(chains) > 1:
        raise typer.BadParameter("one replica at a time", param_hint="--first")
    secret, count = _secret(secret_file), 0
    for chain in chains:
        held, problem = broken_at(chain, secret, first)
        count += held
        if problem is not None:
            typer.echo(f"{count} lines are as they were written; then {problem}.", err=True)
            if held == 0 and first == 0:
                typer.echo("If its oldest files were deleted in their turn, say --first.", err=True)
            raise typer.Exit(NO)
    unchecked = f" Number {first}, on which they rest, can't be checked." if first else ""
    typer.echo(f"ok: {count} lines, none changed.{unchecked}")


@app.command("hash", epilog=epilog("audit hash"))
def hash_text(
    text: Annotated[str, typer.Argument(help="The text as it was sent.")],
    secret_file: SecretFile,
    text_pair: Annotated[str | None, typer.Option(help="Its second half, if it had one.")] = None,
) -> None:
    """Print what stands under `text` in the lines about a text, to search for it.

    Example: `grep $(rayclassify audit hash "很好" --secret-file secret) audit-*.jsonl`
    """
    from deployments.privacy.audit import derived_key, text_digest

    typer.echo(text_digest(derived_key(_secret(secret_file), "text"), text, text_pair))


def _by_replica(files: list[Path]) -> list[list[Path]]:
    """The files of each replica, oldest first: those put aside end in .1, .2 …, .1 the newest."""
    chains: dict[Path, list[tuple[int, Path]]] = {}
    for path in files:
        number = path.suffix.removeprefix(".")
        aside = int(number) if number.isdecimal() else 0
        base = path.with_suffix("") if aside else path
        chains.setdefault(base, []).append((-aside, path))
    return [[path for _, path in sorted(chain)] for _, chain in sorted(chains.items())]


def _secret(path: Path) -> bytes:
    from deployments.privacy.audit import read_secret

    try:
        return read_secret(path)
    except ValueError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(WRONG) from None
