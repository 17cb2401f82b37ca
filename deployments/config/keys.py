"""What pydantic finds in a YAML document, as problems: path, message, and the near name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

BUILDER = "deployments.app:build"
"""The import path whose `args` and `user_config` we know."""
SERVICER = "deployments.grpc.servicer:add_to_server"
"""What `grpc_options.grpc_servicer_functions` names to have us answer over gRPC."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it stands in the config, and what is wrong with the cure.

    path: empty where it is no key's fault. fatal: whether it keeps the service from starting.
    """

    path: str
    message: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def join(path: str, *keys: object) -> str:
    """The path of keys inside `path`: `applications[0]` + `name` → `applications[0].name`."""
    for key in keys:
        inside = f"{path}.{key}" if path else str(key)
        path = f"{path}[{key}]" if isinstance(key, int) else inside
    return path


def nearest(name: object, known: Collection[str]) -> str:
    """The cure for a wrong name: the nearest right one, or all of them."""
    if match := difflib.get_close_matches(str(name), known, n=1):
        return f"did you mean {match[0]}?"
    return f"known here: {', '.join(sorted(known))}"


def unknown_keys(data: Any, known: Collection[str], path: str) -> Iterator[Problem]:
    """Keys of a mapping that are none of the known ones."""
    for key in data.keys() - set(known) if isinstance(data, dict) else ():
        yield Problem(join(path, key), f"unknown key; {nearest(key, known)}")


def validation_problems(
    error: ValidationError, data: Any, model: type[BaseModel], path: str = ""
) -> Iterator[Problem]:
    """What pydantic found wrong in `data`, which it held against `model`."""
    for found in error.errors(include_url=False):
        where, message = _locate(found["loc"], data, path), found["msg"]
        if found["type"] == "missing":
            where = join(where, found["loc"][-1])
        elif found["type"] == "extra_forbidden":
            message = f"unknown key; {_cure(model, found['loc'])}"
        else:
            message = message.removeprefix("Value error, ").partition(" or instance of")[0]
            message += _given(found["input"])
        yield Problem(where, message)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation names, be they optional, in a list or in a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def _cure(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """For an unknown key at a place that pydantic names: the nearest key that is known there."""
    *parents, key = loc
    for parent in parents:  # or the number in a list, or the branch of a union
        if field := _fields(model).get(str(parent)):
            model = next(iter(models_in(field.annotation)), model)
    fields = _fields(model)
    for name, field in fields.items():
        if any(key in _fields(inner) for inner in models_in(field.annotation)):
            return f"it belongs under {name}"
    return nearest(key, fields)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys a model reads, aliases included."""
    keys: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        aliases = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
        keys |= {one: field for one in aliases if isinstance(one, str)}
    return keys


def _given(value: Any) -> str:
    if isinstance(value, (dict, list, tuple)):
        return f"; got {'a mapping' if isinstance(value, dict) else 'a list'}"
    return f"; got {'null' if value is None else repr(value)}"


def _locate(loc: tuple[int | str, ...], data: Any, path: str) -> str:
    """The path of pydantic's `loc`, as far as `data` goes: it may end in a union's branch."""
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        path = join(path, part)
    return path
