"""API keys at rest: their SHA-256 and what each may do, in a YAML or JSON file.

A token is 256 random bits, so there is nothing to guess: the slow hashes made for passwords would
cost every request milliseconds and protect nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from deployments.access.watched_file import WrongFileError

Scope = Literal["classify", "explain", "admin"]

TOKEN_PREFIX = "rck_"  # noqa: S105 - lets secret scanners know one when they see it
_TOKEN_BYTES = 32
# libyaml's loader where it is there: ten times as fast, and a reload holds up the event loop.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class ApiKey(BaseModel):
    """One entry of a keys file. No limit of its own: that of `args.access`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = ("classify",)
    texts_per_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    burst_texts: Annotated[int, Field(gt=0)] | None = None
    texts_per_day: Annotated[int, Field(gt=0)] | None = None
    expires: Annotated[datetime, AfterValidator(_in_utc)] | None = None


Keys: TypeAlias = Mapping[bytes, ApiKey]
"""SHA-256 of a token → its key."""


def new_token() -> str:
    """A token that nobody has: shown once, kept by its owner, never by us."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def hash_of(token: str) -> str:
    """What a keys file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def find_key(keys: Keys, token: bytes) -> ApiKey | None:
    """The key whose token this is.

    What the look-up compares is a hash, which nobody can steer towards a stored one; the last word
    has a comparison that takes the same time wherever the two differ.
    """
    digest = hashlib.sha256(token).digest()
    key = keys.get(digest)
    if key is None or not hmac.compare_digest(bytes.fromhex(key.sha256), digest):
        return None
    return key


def parse_keys(content: bytes) -> Keys:
    """The keys of a file: `keys:` and a list of entries.

    Raises:
        WrongFileError: no YAML or JSON, an unknown or wrong field, a name or hash that comes twice.
    """
    entries = read_entries(content)
    keys: dict[bytes, ApiKey] = {}
    names: set[str] = set()
    for index, entry in enumerate(entries):
        try:
            key = ApiKey.model_validate(entry)
        except ValidationError as exc:
            # Of the input itself nothing: somebody may have put a token there.
            found = exc.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in found["loc"])
            raise WrongFileError(f"keys[{index}].{where}: {found['msg']}") from None
        digest = bytes.fromhex(key.sha256)
        if key.id in names or digest in keys:
            raise WrongFileError(f"keys[{index}]: its id or its sha256 is there twice")
        names.add(key.id)
        keys[digest] = key
    return keys


def read_entries(content: bytes) -> list[Any]:
    """The list under `keys:`, its entries unchecked.

    Raises:
        WrongFileError: no YAML or JSON, or no such list.
    """
    try:
        text = content.decode()
        loaded = _load(text)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else "?"
        raise WrongFileError(f"line {line} is no YAML") from None
    except (ValueError, yaml.YAMLError) as exc:
        raise WrongFileError(f"it is neither YAML nor JSON ({type(exc).__name__})") from None
    if not isinstance(loaded, dict) or not isinstance(loaded.get("keys"), list):
        raise WrongFileError("it must hold `keys:` and a list below; an empty list lets nobody in")
    if unknown := loaded.keys() - {"keys"}:
        raise WrongFileError(f"{len(unknown)} unknown keys stand beside `keys:`")
    return list(loaded["keys"])


def _load(text: str) -> Any:
    if text.startswith("{"):
        try:
            return json.loads(text)  # a hundred times as fast
        except ValueError:
            pass  # YAML has braces too
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
