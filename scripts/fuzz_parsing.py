"""Coverage-guided fuzzing of the bodies' parsers: JSON, forms, multipart, content types.

Needs `pip install -e ".[fuzz]"` (atheris, Linux). Arguments are libFuzzer's, so a run that ends is
`python scripts/fuzz_parsing.py -max_total_time=60 -max_len=4096`; a folder of inputs may follow,
where what reaches new code is kept. What breaks a promise is written to `crash-*` and ends the run.
"""

from __future__ import annotations

import asyncio
import sys

import atheris

with atheris.instrument_imports(include=["deployments.http", "python_multipart"]):
    from deployments.http.body import HeldBytes, read_question
    from deployments.http.dialects.classify import ClassifyDialect
from deployments.pipeline.errors import ServiceError
from deployments.settings import LimitSettings

LIMITS = LimitSettings(max_batch_texts=8, max_text_chars=200)
DIALECT = ClassifyDialect(LIMITS)
HELD = HeldBytes(LIMITS.max_held_body_bytes)
TYPES = (
    b"application/json",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=x",
    b"text/plain",
    b"",
)


def try_one(data: bytes) -> None:
    """The first byte chooses the content type (or that it comes from the input too).

    Raises:
        whatever should not leave the parsers: anything but a caller's error.
    """
    choice, body = data[0] % (len(TYPES) + 1) if data else 0, data[1:]
    if choice < len(TYPES):
        content_type = TYPES[choice]
    else:
        content_type, _, body = body.partition(b"\n")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    scope = {"type": "http", "headers": [(b"content-type", content_type)]}
    try:
        question = asyncio.run(read_question(scope, receive, DIALECT, LIMITS, HELD))
        for item in question.inputs:
            if isinstance(item, ServiceError):
                raise item
    except ServiceError as error:
        if not 400 <= error.status < 500:
            raise
        error.message.encode()  # half a surrogate pair in a message could not be sent


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
