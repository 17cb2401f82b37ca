"""The content types that a request's body may have."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.pipeline.errors import UnsupportedMediaType

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
PLAIN = "text/plain"
NDJSON = "application/x-ndjson"
OCTETS = "application/octet-stream"
ACCEPTED = (JSON, URLENCODED, MULTIPART, PLAIN)


def media_type_of(header: str, accepted: Sequence[str] = ACCEPTED) -> str:
    """The accepted type that a Content-Type header names, without its parameters.

    Raises:
        UnsupportedMediaType: another type, or a charset other than UTF-8.
    """
    media_type, *parameters = (part.strip().lower() for part in header.split(";"))
    for parameter in parameters:
        key, _, charset = parameter.partition("=")
        if key.strip() == "charset" and charset.strip('" ') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType("Only the charset utf-8 is accepted. Encode it as UTF-8.")
    if media_type.startswith("application/") and media_type.endswith("+json"):
        return JSON
    if media_type and media_type not in accepted:
        raise UnsupportedMediaType(
            f"This content type is not accepted. Send one of {', '.join(accepted)}."
        )
    return media_type
