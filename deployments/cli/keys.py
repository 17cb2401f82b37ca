"""`rayclassify keys`: make, list and revoke the API keys of a keys file."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from deployments.access.keys import ApiKey, Keys, hash_of, new_token, parse_keys
from deployments.access.watched_file import WrongFileError
from deployments.cli.exit_codes import WRONG, epilog

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make, list and revoke API keys; `args.access.keys_file` names their file.",
)

KeysPath = Annotated[
    Path, typer.Option("--file", "-f", help="The keys file.", envvar="RAYCLASSIFY_KEYS_FILE")
]
DEFAULT_FILE = Path("keys.yaml")
_HEAD = """\
# Made by `rayclassify keys`. Hashes only: who reads this file can't use the keys, who writes it can
# let anybody in. A running service sees a change within a second or two.
keys: []
"""


@app.command(epilog=epilog("keys new"))
def new(
    key_id: Annotated[str, typer.Option("--id", help="Whose key it is; audit logs name it.")],
    scopes: Annotated[
        str, typer.Option(help="classify, explain, admin (all); several with commas.")
    ] = "classify",
    file: KeysPath = DEFAULT_FILE,
    texts_per_s: Annotated[float | None, typer.Option(help="Texts a second.")] = None,
    burst_texts: Annotated[
        int | None, typer.Option(help="Texts at once after a pause; one second's worth if absent.")
    ] = None,
    texts_per_day: Annotated[int | None, typer.Option(help="Texts a day, UTC.")] = None,
    expires: Annotated[
        datetime | None, typer.Option(help="The key ends then, UTC.", formats=["%Y-%m-%d"])
    ] = None,
) -> None:
    """Make a key. Prints it once, to stdout; the file gets its hash.

    Example: `rayclassify keys new --id shop --texts-per-s 50 --texts-per-day 100000`
    """
    text, keys = _read(file, must_exist=False)
    if any(key.id == key_id for key in keys.values()):
        _fail(f"{file} has a key {key_id!r}. Choose another --id, or revoke it first.")
    token = new_token()
    entry = {
        "id": key_id,
        "sha256": hash_of(token),
        "scopes": [scope.strip() for scope in scopes.split(",")],
        "texts_per_s": texts_per_s,
        "burst_texts": burst_texts,
        "texts_per_day": texts_per_day,
        "expires": None if expires is None else expires.replace(tzinfo=UTC),
    }
    entry = {name: value for name, value in entry.items() if value is not None}
    try:
        ApiKey.model_validate(entry)
    except ValidationError as exc:
        found = exc.errors(include_url=False)[0]
        _fail(f"{found['loc'][0]}: {found['msg']}")
    document = _document(text)
    document["keys"].append(entry)
    _write(file, document)
    typer.echo(token)
    typer.echo(f"It is shown this once; its hash is in {file}.", err=True)


@app.command("list", epilog=epilog("keys list"))
def list_keys(file: KeysPath = DEFAULT_FILE) -> None:
    """Show the keys of a file: whose they are, what they may do, when they end."""
    _, keys = _read(file)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("id", "scopes", "texts/s", "burst", "texts/day", "expires", "sha256"):
        table.add_column(column, no_wrap=True)
    for key in keys.values():
        limits = (key.texts_per_s, key.burst_texts, key.texts_per_day)
        table.add_row(
            key.id,
            ",".join(key.scopes),
            *("" if limit is None else f"{limit:g}" for limit in limits),
            _when(key),
            f"{key.sha256[:8]}…",
        )
    Console().print(table)


@app.command(epilog=epilog("keys revoke"))
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Whose key ends.")],
    file: KeysPath = DEFAULT_FILE,
) -> None:
    """Take a key out of the file. A running service refuses it within a second or two."""
    text, keys = _read(file)
    if all(key.id != key_id for key in keys.values()):
        _fail(f"{file} has no key {key_id!r}; see `rayclassify keys list`.")
    document = _document(text)
    document["keys"][:] = [entry for entry in document["keys"] if entry["id"] != key_id]
    _write(file, document)
    typer.echo(f"{key_id} is revoked.", err=True)


def _when(key: ApiKey) -> str:
    if key.expires is None:
        return "never"
    ended = " (ended)" if key.expires <= datetime.now(UTC) else ""
    return f"{key.expires:%Y-%m-%d}{ended}"


def _read(file: Path, must_exist: bool = True) -> tuple[str, Keys]:
    if not must_exist and not file.exists():
        return _HEAD, {}
    try:
        content = file.read_bytes()
        keys = parse_keys(content)
        return content.decode(), keys
    except OSError as exc:
        _fail(f"{file} can't be read ({type(exc).__name__}).")
    except WrongFileError as exc:
        _fail(f"{file}: {exc}")


def _document(text: str) -> Any:
    from ruamel.yaml import YAML  # keeps the comments

    return YAML().load(text)


def _write(file: Path, document: Any) -> None:
    """All or nothing: a service that reads meanwhile sees the old file or the new one."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 1_000
    yaml.default_flow_style = False
    if not document["keys"]:
        document["keys"] = []
    elif hasattr(document["keys"], "fa"):
        document["keys"].fa.set_block_style()
    text = StringIO()
    yaml.dump(document, text)
    try:
        _replace(file.resolve(), text.getvalue())
    except OSError as exc:
        _fail(f"{file} can't be written ({exc.strerror}).")


def _replace(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp: for this user alone. A file that was there keeps what others may do with it.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    if target.exists():
        was = target.stat()
        try:
            os.chown(name, was.st_uid, was.st_gid)
        except OSError:
            # The service would go on with the keys that it knows, the revoked one among them.
            Path(name).unlink()
            _fail(f"{target} belongs to another user, who could not read it any more. Run as that.")
        Path(name).chmod(was.st_mode & 0o777)
    Path(name).replace(target)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(WRONG)
