"""Tensors of texts in, of labels and scores out: in JSON, or binary behind it.

The binary extension is Triton's (docs/protocol/extension_binary_data.md): a BYTES element is its
length, 4 bytes little-endian, and then its bytes. Base64 is MLServer's (mlserver/codecs/base64.py).
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta
from starlette.types import Scope

from deployments.http.dialects.base import Json
from deployments.pipeline.errors import BadRequest, InvalidInput, TooLarge

JSON_LENGTH = b"inference-header-content-length"
"""The header that says where the JSON ends and binary data begins."""

# Longer numbers are beyond any body, and costly to read.
_MAX_DIGITS = 18


class InputParameters(msgspec.Struct):
    """Of one tensor in. content_type: MLServer's."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    content_type: Literal["str", "base64"] | None = None


class InputTensor(msgspec.Struct):
    """A tensor in. data: None where it is binary."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: InputParameters | None = None


class BinaryData:
    """What stands behind the JSON; each tensor takes its part, in their order."""

    def __init__(self, content: bytes, start: int) -> None:
        self._content = content
        self._at = start

    def take(self, size: int, place: str) -> bytes:
        """The next `size` bytes.

        Raises:
            InvalidInput: there are fewer.
        """
        left = self.left()
        if size > left:
            raise InvalidInput(
                f"{place}: `binary_data_size` is more than the {left} bytes that are left behind "
                "the JSON."
            )
        self._at += size
        return self._content[self._at - size : self._at]

    def left(self) -> int:
        """How many bytes nobody took."""
        return len(self._content) - self._at


def json_length(scope: Scope, size: int) -> int:
    """How much of a body of `size` bytes is JSON.

    Raises:
        BadRequest: the header says no such number.
    """
    for name, value in scope["headers"]:
        if name == JSON_LENGTH:
            sensible = value.isdigit() and len(value) <= _MAX_DIGITS
            if not sensible or not 1 <= int(value) <= size:
                raise BadRequest(
                    "Inference-Header-Content-Length must be the JSON's bytes, a whole number "
                    f"from 1 to the body's {size}. Raw binary requests, which say 0, are not read."
                )
            return int(value)
    return size


def texts_of(tensor: InputTensor, place: str, binary: BinaryData, max_rows: int) -> list[list[str]]:
    """The tensor's rows, each of one text or of two.

    place: how errors call it. binary: where its data may be.

    Raises:
        InvalidInput: another type, another shape, or data that is not as long as the shape says.
        TooLarge: more rows than `max_rows`.
    """
    if tensor.datatype != "BYTES":
        raise InvalidInput(f"{place}: `datatype` must be BYTES, as a text has no other.")
    rows, columns = _rows_and_columns(tensor.shape, place)
    if rows > max_rows:
        raise TooLarge(f"{place}: `shape` has over {max_rows} texts, the limit. Send several.")
    said = tensor.parameters or InputParameters()
    items: Sequence[object]
    if said.binary_data_size is not None:
        if tensor.data is not None:
            raise InvalidInput(f"{place} has `data` and `binary_data_size`. Send one of them.")
        items = _unpacked(binary.take(said.binary_data_size, place), rows * columns, place)
    elif tensor.data is None:
        raise InvalidInput(f"{place}: `data` is missing.")
    else:
        items = _flat(tensor.data)
    if len(items) != rows * columns:
        raise InvalidInput(f"{place}: `shape` is not that of its data, of {len(items)} elements.")
    texts = [
        _text(item, f"{place}.data[{i}]", said.content_type == "base64")
        for i, item in enumerate(items)
    ]
    return [texts[i : i + columns] for i in range(0, len(texts), columns)]


def _rows_and_columns(shape: list[int], place: str) -> tuple[int, int]:
    if len(shape) in (1, 2) and shape[0] >= 0:
        columns = shape[1] if len(shape) == 2 else 1
        if columns in (1, 2):
            return shape[0], columns
    raise InvalidInput(f"{place}: `shape` must be [n] or [n, 1], or [n, 2] for pairs.")


def _flat(data: list[Any]) -> list[object]:
    """Row by row, as a tensor's data may be nested or not."""
    flat: list[object] = []
    for item in data:
        if isinstance(item, list):
            flat.extend(item)
        else:
            flat.append(item)
    return flat


def _unpacked(raw: bytes, count: int, place: str) -> list[bytes]:
    items: list[bytes] = []
    at = 0
    for i in range(count):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if at > len(raw) or start > len(raw):
            raise InvalidInput(f"{place}: its binary data ends within element {i} of {count}.")
        items.append(raw[start:at])
    if at != len(raw):
        raise InvalidInput(f"{place}: its binary data goes on behind its {count} elements.")
    return items


def _text(item: object, place: str, base64: bool) -> str:
    if not isinstance(item, str | bytes):
        raise InvalidInput(f"{place} must be a string.")
    if base64:
        try:
            item = b64decode(item, validate=True)
        except ValueError:
            raise InvalidInput(f"{place} is not valid base64.") from None
    # Bytes that are not UTF-8 become what the check of the text itself refuses.
    return item if isinstance(item, str) else item.decode("utf-8", "surrogateescape")


class OutputTensor(NamedTuple):
    """A tensor out: of strings, or of numbers. binary: whether its data stand apart."""

    name: str
    shape: list[int]
    values: Sequence[Any]
    parameters: Json
    binary: bool

    @property
    def datatype(self) -> Literal["BYTES", "FP32"]:
        return "BYTES" if self.values and isinstance(self.values[0], str) else "FP32"

    def packed(self) -> bytes:
        """Its values as binary data."""
        if self.datatype == "FP32":
            return struct.pack(f"<{len(self.values)}f", *self.values)
        encoded = [value.encode() for value in self.values]
        return b"".join(part for one in encoded for part in (len(one).to_bytes(4, "little"), one))


def tensor_out(tensor: OutputTensor) -> tuple[Json, bytes]:
    """A tensor in JSON, and its binary data, if it has any."""
    told: Json = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    parameters, raw = tensor.parameters, b""
    if tensor.binary:
        raw = tensor.packed()
        parameters = {**parameters, "binary_data_size": len(raw)}
    else:
        told["data"] = tensor.values
    if parameters:
        told["parameters"] = parameters
    return told, raw
