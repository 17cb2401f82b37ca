"""`rayclassify info`: what the running service serves, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployments.cli.classify import DEFAULT_URL, KeyOption, UrlOption
from deployments.cli.exit_codes import NO, UNREACHABLE
from deployments.cli.formats import Format, FormatOption, JsonOption, chosen, print_csv, print_json

TIMEOUT_S = 20.0


def info(
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
    format_: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """What the running service serves: model, labels, engine, batching, limits, versions, dialects.

    `rayclassify status` looks at the cluster behind it.

    Example: `rayclassify info --format json | jq -r '.labels[]'`
    """
    from rayclassify_client import Client, ClientError, ServiceError
    from rayclassify_client.errors import NotFound

    form = chosen(format_, as_json)
    try:
        with Client(url, key, timeout_s=TIMEOUT_S, retries=0) as client:
            found = client.info()
    except ClientError as exc:
        refused = isinstance(exc, ServiceError) and not isinstance(exc, NotFound)
        typer.echo(f"error: {exc}{'' if refused else ' --url names it.'}", err=True)
        raise typer.Exit(NO if refused else UNREACHABLE) from None
    if form is Format.json:
        print_json(found)
    elif form is Format.csv:
        rows = [{"field": field, "value": value} for field, value in flat(found)]
        print_csv(("field", "value"), rows)
    else:
        Console().print(_table(found))


def flat(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is said, as names and values; what stands under a name has it in front: `limits.…`."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", said) for inner, said in flat(value))
        elif value is not None:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in flat(found):
        table.add_row(name, Text(value))
    return table
