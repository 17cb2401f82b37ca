"""Unknown keys of a YAML document, found by walking the pydantic models it is meant for.

Most of Ray Serve's schemas ignore keys that they do not know, so a misspelt one changes nothing
and says nothing. The walk reads `model_fields`, so it knows whatever the installed Ray knows.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

BUILDER = "deployments.app:build"
"""The import path whose `args` and `user_config` we know."""


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


def join(path: str, key: object) -> str:
    """The path of `key` inside `path`: `applications[0]` + `name` → `applications[0].name`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def nearest(name: object, known: Collection[str]) -> str:
    """The cure for a wrong name: the nearest right one, or all of them."""
    if match := difflib.get_close_matches(str(name), known, n=1):
        return f"did you mean {match[0]}?"
    return f"known here: {', '.join(sorted(known))}"


def unknown_keys(value: Any, annotation: Any, path: str = "") -> Iterator[Problem]:
    """Keys in `value` that no model in `annotation` knows, and values of the wrong shape."""
    options = _options(annotation)
    if value is None and NoneType in options:
        return
    if models := [o for o in options if _is_model(o)]:
        if isinstance(value, dict):
            yield from _model_keys(value, models, path)
        else:
            yield Problem(path, f"must be a mapping of keys to values; got {_shape(value)}")
    elif lists := [o for o in options if get_origin(o) in (list, tuple)]:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from unknown_keys(item, _argument(lists[0], 0), join(path, index))
        else:
            yield Problem(path, f"must be a list; got {_shape(value)}")
    elif isinstance(value, dict):
        for mapping in [o for o in options if get_origin(o) is dict]:
            for key, item in value.items():
                yield from unknown_keys(item, _argument(mapping, 1), join(path, key))


def validation_problems(error: ValidationError, data: Any, path: str = "") -> Iterator[Problem]:
    """What pydantic found in `data`, as problems; unknown keys are left to `unknown_keys`."""
    for found in error.errors(include_url=False):
        if found["type"] == "extra_forbidden":
            continue
        message = found["msg"].removeprefix("Value error, ")
        given = found["input"]
        if found["type"] != "missing" and not isinstance(given, (dict, list, tuple)):
            message += f"; got {'null' if given is None else repr(given)}"
        where = _locate(found["loc"], data, path)
        if found["type"] == "missing":
            where = join(where, found["loc"][-1])
        yield Problem(where, message)


def dict_or_model_fields(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Fields typed `dict | SomeModel`: pydantic takes any dict there and validates nothing."""
    fields: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        options = _options(field.annotation)
        models = [o for o in options if _is_model(o)]
        if models and any(o is dict or get_origin(o) is dict for o in options):
            fields[name] = models[0]
    return fields


def _model_keys(
    value: dict[Any, Any], models: list[type[BaseModel]], path: str
) -> Iterator[Problem]:
    model = max(models, key=lambda m: len(value.keys() & _fields(m).keys()))
    fields = _fields(model)
    for key, item in value.items():
        if key in fields:
            yield from unknown_keys(item, fields[key].annotation, join(path, key))
        else:
            yield Problem(join(path, key), f"unknown key; {_cure(key, fields)}")


def _cure(key: object, fields: dict[str, FieldInfo]) -> str:
    for name, field in fields.items():
        inner = [m for m in _options(field.annotation) if _is_model(m)]
        if any(key in _fields(m) for m in inner):
            return f"it belongs under {name}"
    return nearest(key, fields.keys())


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys a model reads, aliases included."""
    by_name = model.model_config.get("populate_by_name") or model.model_config.get(
        "validate_by_name"
    )
    keys: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        aliases = alias.choices if isinstance(alias, AliasChoices) else [alias]
        keys.update({a: field for a in aliases if isinstance(a, str)})
        if alias is None or by_name:
            keys[name] = field
    return keys


def _options(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation: Optional, Union and Annotated are opened."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _options(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return tuple(o for arg in get_args(annotation) for o in _options(arg))
    return (annotation,)


def _argument(annotation: Any, index: int) -> Any:
    arguments = get_args(annotation)  # none for a bare `Dict` or `List`
    return arguments[index] if index < len(arguments) else Any


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _shape(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)


def _locate(loc: tuple[int | str, ...], data: Any, path: str) -> str:
    """The path of pydantic's `loc`, as far as `data` goes: it may end in a union's branch."""
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        path = join(path, part)
    return path
