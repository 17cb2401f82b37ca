"""The one table of paths: what answers there, what a key needs for it, how OpenAPI shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.access.keys import Scope as AccessScope
from deployments.http.dialects.base import Dialect, Family, Json, Open
from deployments.http.examples import ANSWERS, error_response, ref
from deployments.http.media_types import JSON, NDJSON
from deployments.http.responses import RenderError, rendered
from deployments.pipeline.errors import NotReady, UnsupportedMediaType

DOCS_ASSETS = "/docs/assets/"
STREAM = "/classify/stream"
STREAM_NAME = "stream"
"""In the place of a dialect's name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One method of a path. open: who needs no key.

    access_scope: what a key needs; None where any will do. operation: OpenAPI's; None where the
    document leaves it out. render_error: how a refusal reads. dialect: of a question to classify;
    empty of all others.
    """

    method: str
    open: Open
    access_scope: AccessScope | None = None
    operation: Json | None = None
    render_error: RenderError = rendered
    dialect: str = ""


Table = Mapping[str, Sequence[Entry]]
"""Path → its entries, one for each method."""


def table(dialects: Sequence[Dialect], with_keys: bool = False) -> Table:
    """All that is answered. A path that two claim for one method is a mistake of ours; only
    GET /info may be a dialect's.

    One that ends in `/` stands for all below it that have no entry of their own.

    Raises:
        ValueError: two dialects claim one path.
    """
    own = {
        # Probes carry no key. Prometheus asks another port, which is Ray's.
        "/health": Entry("GET", "always", None, _get("health", "Does the process live?", "Health")),
        "/ready": Entry(
            "GET", "always", None, _get("ready", "Is the model loaded and warm?", "Health")
        ),
        "/info": Entry("GET", "never", None, _get("info", "Which model, on which device?", "Info")),
        # It tells of all callers' load, so not to each of them.
        "/state": Entry("GET", "never", "admin", _get("state", "How busy is it?", "State")),
        STREAM: Entry("POST", "never", "classify", _stream(), dialect=STREAM_NAME),
        "/": Entry("GET", "if docs_public"),
        "/docs": Entry("GET", "if docs_public"),
        DOCS_ASSETS: Entry("GET", "if docs_public"),
        "/openapi.json": Entry("GET", "if docs_public"),
    }
    if any("/info" in dialect.pages for dialect in dialects):
        del own["/info"]
    entries = {path: [entry] for path, entry in own.items()}
    for dialect in dialects:
        render = dialect.render_error
        operation = dialect.operation(with_keys)
        claimed = [
            (
                path,
                Entry(
                    "POST",
                    "never",
                    dialect.access_scope,
                    _numbered(operation, i),
                    render,
                    dialect.name,
                ),
            )
            for i, path in enumerate(dialect.paths)
        ]
        claimed += [
            (path, Entry("GET", page.open, None, page.operation, render))
            for path, page in dialect.pages.items()
        ]
        if isinstance(dialect, Family):
            below = Entry("GET", "never", dialect.access_scope, None, render)
            claimed.append((dialect.prefix, below))
        for path, entry in claimed:
            there = entries.setdefault(path, [])
            if any(entry.method == other.method for other in there):
                raise ValueError(f"two answer at {path}")
            there.append(entry)
    return entries


def _numbered(operation: Json, i: int) -> Json:
    """The operation of a dialect's i-th path: an operationId may stand once in the document."""
    name = operation["operationId"]
    return {**operation, "operationId": f"{name}_{i + 1}" if i else name}


def _stream() -> Json:
    line = {"type": "string", "description": "Lines, each a ClassifyRequest of one text, and `id`."}
    answer = {"type": "string", "description": "Lines, each a Prediction or an error, and `id`."}
    request = '{"id": 1, "text": "这家店很好"}\n{"id": 2, "text": "太差了"}\n'
    return {
        "operationId": "classify_stream",
        "tags": ["Classification"],
        "summary": "Classify lines of JSON as they come, for as long as they come",
        "requestBody": {
            "required": True,
            "content": {NDJSON: {"schema": line, "example": request}},
        },
        "responses": {
            "200": {
                "description": "A line for each, in order",
                "content": {NDJSON: {"schema": answer}},
            },
            "415": error_response([UnsupportedMediaType("Compressed bodies are not accepted.")]),
            "503": error_response([NotReady("The model is loading. Try again soon.")]),
        },
    }


_CERTIFICATE: Json = {
    "name": "certificate",
    "in": "query",
    "description": "Present, whatever its value: what was proven of the model when it was loaded.",
    "schema": {"type": "string"},
}


def _get(name: str, summary: str, schema: str) -> Json:
    example = ANSWERS["ok" if name == "health" else name]
    responses: Json = {
        "200": {
            "description": "Yes" if summary.startswith(("Does", "Is")) else "The service's answer",
            "content": {JSON: {"schema": ref(schema), "example": example}},
        }
    }
    if name not in ("health", "state"):
        responses["503"] = error_response([NotReady("The model is loading. Try again soon.")])
    operation: Json = {"operationId": name, "tags": ["Service"], "summary": summary}
    if name == "info":
        operation["parameters"] = [_CERTIFICATE]
    return operation | {"responses": responses}
