"""Ray's token: whoever holds it can run code in the cluster, so its file is its owner's alone."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class NoToken(Exception):
    """None is there and none can be made. The message says the cure."""


def read_token(environment: Mapping[str, str]) -> str:
    """The token, looked for where Ray looks; empty where there is none."""
    if told := environment.get("RAY_AUTH_TOKEN"):
        return told
    try:
        return token_path(environment).read_text(encoding="utf-8").strip()
    except (OSError, RuntimeError):
        return ""


def token_path(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps it, where no variable holds the token itself.

    Raises:
        RuntimeError: there is no home directory.
    """
    if named := environment.get("RAY_AUTH_TOKEN_PATH"):
        return Path(named)
    home = environment.get("HOME")
    return (Path(home) if home else Path.home()) / ".ray" / "auth_token"


def secure_token(environment: Mapping[str, str], make: bool) -> str | None:
    """Sees that nobody else can read the token's file: 0600 in a 0700 directory.

    Ray makes it readable by all. make: where there is none, make it before Ray does. A file that
    RAY_AUTH_TOKEN_PATH names is left in the directory it has: that may hold more than the token.

    Returns: what a person should know, if anything; one sentence with the cure.

    Raises:
        NoToken: one should be made, and its place can't be written: Ray would not start either.
    """
    if environment.get("RAY_AUTH_TOKEN"):
        return None
    try:
        path = token_path(environment)
        ours = not environment.get("RAY_AUTH_TOKEN_PATH")
        if not path.exists():
            if not (make and ours):
                return None
            try:
                _make(path)
            except OSError as exc:
                raise NoToken(
                    f"Ray's token can't be written to {path} ({exc.strerror}), and no Ray starts "
                    "without one. Name one by `export RAY_AUTH_TOKEN=$(openssl rand -hex 32)`, in "
                    "every terminal that asks `rayclassify status` or `deploy`; or set HOME."
                ) from None
        if ours:
            _take_from_others(path.parent)
        was_open = _take_from_others(path)
    except (OSError, RuntimeError) as exc:
        return (
            f"Ray's token can't be kept from other users of this machine ({type(exc).__name__}): "
            "make its file 0600, and yours."
        )
    if not was_open:
        return None
    return (
        f"{path} was readable by other users of this machine, and is no longer. It lets its holder "
        "run code in the cluster: if others have accounts here, delete it while no Ray runs, and "
        "the next start makes a new one."
    )


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes it 0600. As a link, it is there wholly or not at all, and never over another's.
    handle, unfinished = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))  # as Ray makes it
        os.link(unfinished, path)
    except FileExistsError:
        pass  # another start was faster
    finally:
        Path(unfinished).unlink()


def _take_from_others(path: Path) -> bool:
    """Whether others had a right to it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        path.chmod(mode & ~_OTHERS)
    return bool(mode & _OTHERS)
