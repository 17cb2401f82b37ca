"""The audit log: one JSON line a decision, with no text in it.

    {"n":0,"time":"2026-11-25T08:00:00.000Z","request_id":"66f1fe44","key_id":"key:shop",
     "text":"9c1e…","label":"positive","score":0.98,"tokens":12,"model":"40aa…",
     "engine":"torch float32"}

`text` is an HMAC-SHA256 under a secret: who has the secret can tell whether a text they hold was
decided on, nobody can read one out of the log. A plain hash would give short texts away to whoever
tries them all.
"""

from __future__ import annotations

import hmac
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec

from deployments.pipeline.cascade import CASCADE
from deployments.pipeline.errors import ServiceError, kind_and_place, loggable_id
from deployments.pipeline.pipeline import MODEL
from deployments.pipeline.types import Answer, TextInput
from deployments.settings import AuditSettings

logger = logging.getLogger(__name__)

MIN_SECRET_BYTES = 16
# Requests whose lines wait for a disk that has stopped; what comes on top is lost, and counted.
MAX_WAITING_REQUESTS = 10_000
# Lines are written this much later at most; a replica that is killed loses them.
PAUSE_S = 0.05
MAX_REQUESTS_A_WRITE = 100
_CHAIN = b',"chain":"'
_encode = msgspec.json.Encoder().encode

_Line = dict[str, Any]


class AuditLog:
    """Writes in a thread of its own: whoever records never waits for the disk.

    engine: what decides; it stands in every line. first_engine: of a cascade's first model, in the
    lines of its answers.

    Raises:
        ValueError: no secret, or one too short to keep anything.
        OSError: the directory can't be written to.
    """

    def __init__(self, settings: AuditSettings) -> None:
        if settings.directory is None or settings.secret_file is None:
            raise ValueError("args.audit needs both `directory` and `secret_file`.")
        secret = read_secret(Path(settings.secret_file))
        self.engine: str | None = None
        self.first_engine: str | None = None
        self._dropped = self._unwritten = 0  # each written by one thread only
        self._text_key = derived_key(secret, "text")
        self._chain_key = derived_key(secret, "chain") if settings.chain else None
        self._with_score = settings.scores
        self._waiting: deque[list[_Line]] = deque()
        self._closing = threading.Event()
        self._n, self._last, self._failing = 0, b"", False
        directory = Path(settings.directory)
        directory.mkdir(parents=True, exist_ok=True)
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        # A file for each replica: none would know where another one's line ends.
        self.path = directory / f"audit-{socket.gethostname()}-{started}-{os.getpid()}.jsonl"
        self._file = _PrivateFile(
            self.path, maxBytes=settings.max_file_bytes, backupCount=settings.max_files - 1
        )
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._dropped + self._unwritten

    def record(
        self,
        inputs: Sequence[TextInput | ServiceError],
        results: Sequence[Answer | ServiceError],
        request_id: str | None,
        key_id: str | None,
    ) -> None:
        """What became of the texts of one request; those that were none leave no line.

        Takes out of each answer which model gave it (`pipeline.MODEL`): callers are not told.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # Both ids may be a caller's own words.
        about = {
            "time": now,
            "request_id": request_id and loggable_id(request_id),
            "key_id": key_id and key_id.encode(errors="replace").decode(),
        }
        # Hashed here and not in the thread: a text is held no longer than its request.
        lines = [
            {
                **about,
                "text": text_digest(self._text_key, item.text, item.text_pair),
                **self._outcome(result),
                "engine": self.first_engine if _is_first(result) else self.engine,
            }
            for item, result in zip(inputs, results, strict=True)
            if isinstance(item, TextInput)
        ]
        if len(self._waiting) < MAX_WAITING_REQUESTS:
            self._waiting.append(lines)
        else:
            self._dropped += len(lines)

    def _outcome(self, result: Answer | ServiceError) -> _Line:
        if isinstance(result, ServiceError):
            return {"error": result.code, "model": None}
        kept = ("label", "tokens", "score") if self._with_score else ("label", "tokens")
        return {
            **{name: result[name] for name in kept if name in result},
            "model": result.pop(MODEL, None),
        }

    def close(self) -> None:
        """Returns when all is written."""
        self._closing.set()
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(PAUSE_S)
            # What has come meanwhile is written at once: a write costs more than a line.
            while n := min(len(self._waiting), MAX_REQUESTS_A_WRITE):
                self._write([*chain(*(self._waiting.popleft() for _ in range(n)))])

    def _write(self, lines: list[_Line]) -> None:
        """All of them, or none."""
        n, last, written = self._n, self._last, bytearray()
        try:
            for line in lines:
                lost = {"lost_before": self.lost} if self.lost and not written else {}
                encoded = _encode({"n": n, **line, **lost})
                if self._chain_key is not None:
                    last = chained(self._chain_key, last, encoded)
                    encoded = encoded[:-1] + _CHAIN + last.hex().encode() + b'"}'
                written += encoded + b"\n"
                n += 1
            self._file.append(written)
        except Exception as exc:
            self._unwritten += len(lines)
            if not self._failing:
                logger.error("the audit log can't be written: %s", kind_and_place(exc))
            self._failing = True
        else:
            self._n, self._last, self._failing = n, last, False


def read_secret(path: Path) -> bytes:
    """The bytes of a file, without white space around them.

    Raises:
        ValueError: it can't be read, or is too short to be a secret.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as exc:
        raise ValueError(f"args.audit.secret_file can't be read ({exc.strerror}).") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"args.audit.secret_file has {len(secret)} bytes; it needs {MIN_SECRET_BYTES} or more. "
            "Make one with `openssl rand -hex 32`."
        )
    return secret


def derived_key(secret: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose, 32 bytes."""
    return hmac.digest(secret, f"rayclassify audit {purpose}".encode(), "sha256")


def text_digest(key: bytes, text: str, text_pair: str | None = None) -> str:
    """The HMAC-SHA256 of a text, or of both halves of a pair, in hexadecimal."""
    message = text.encode()
    if text_pair is not None:
        # The length in front, so that no other pair has the same bytes.
        message = b"%d:%b%b" % (len(message), message, text_pair.encode())
    return hmac.digest(key, message, "sha256").hex()


def chained(key: bytes, last: bytes, line: bytes) -> bytes:
    """What a line says of itself and of all lines before it. last: of the line before, or empty."""
    return hmac.digest(key, last + line, "sha256")


def broken_at(paths: Sequence[Path], secret: bytes, first: int = 0) -> tuple[int, str | None]:
    """How many lines of the files, oldest first, hold together, and what is wrong with the next.

    first: the number that they must begin with. Where it is not 0, as the oldest files were deleted
    in their turn, that line can't be checked and is not counted: what it rests on is not there.
    That lines are missing at the end shows nowhere.
    """
    key = derived_key(secret, "chain")
    count, expected = 0, first
    last = None if first else b""  # None: it is not there
    for path in paths:
        for number, raw in enumerate(path.read_bytes().splitlines(), 1):
            place = f"{path.name}, line {number}"
            body, mark, rest = raw.rpartition(_CHAIN)
            if not mark:
                return count, f"{place}: has no chain; set args.audit.chain to true"
            try:
                n, said = msgspec.json.decode(body + b"}")["n"], bytes.fromhex(rest[:-2].decode())
            except (ValueError, KeyError, TypeError):
                return count, f"{place}: is no line of an audit log"
            if n == 0 and number == 1 and last is not None:
                last = b""  # the file of the next replica
            elif n != expected:
                return count, f"{place}: is number {n} where {expected} should follow"
            if last is not None:
                if not hmac.compare_digest(chained(key, last, body + b"}"), said):
                    return count, f"{place}: was changed, or a line before it was"
                count += 1
            last, expected = said, n + 1
    return count, None


def _is_first(result: Answer | ServiceError) -> bool:
    said = result.get(CASCADE) if isinstance(result, dict) else None
    return said is not None and said["stage"] == "first"


class _PrivateFile(RotatingFileHandler):
    """Of the owner alone. Used for its rotation: what is appended is there as a whole or not."""

    def append(self, lines: bytearray) -> None:
        """Raises OSError: it can't be written, and nothing of it is there."""
        if self.stream is None:  # the last rotation failed
            self.stream = self._open()
        place = self.stream.fileno()
        size = os.fstat(place).st_size
        if size and size + len(lines) > self.maxBytes:
            self.doRollover()
            place, size = self.stream.fileno(), 0
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(place, rest) :]
        except OSError:
            # A disk that is full takes a part; the next line would be written behind it.
            os.ftruncate(place, size)
            raise

    def _open(self) -> Any:
        private = partial(os.open, mode=0o600)
        return open(self.baseFilename, "ab", buffering=0, opener=private)
