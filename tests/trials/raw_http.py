"""HTTP/1.1 over a bare socket: what no client library would send, and answers byte by byte."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

TIMEOUT_S = 30.0


class BrokenAnswer(Exception):
    """What came back is not HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Names of `headers` are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json")


@dataclass
class Exchange:
    """What became of one connection: its answers in order, and how it ended.

    closed: by the other side; rest: bytes of an answer that did not end.
    """

    answers: list[Answer] = field(default_factory=list)
    closed: bool = False
    rest: bytes = b""


class Connection:
    """One connection; blocking, for one thread."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """False where the other side closed; its answer may still be there to be read."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def receive(self, timeout_s: float = TIMEOUT_S) -> Answer | None:
        """The next answer, or None where the connection ended before it began.

        Raises:
            TimeoutError: nothing, or not all of it, in time.
            BrokenAnswer
        """
        deadline = time.monotonic() + timeout_s
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._fill(deadline):
                if self._buffer:
                    raise BrokenAnswer("the connection ended within the head of an answer")
                return None
        try:
            line, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            pairs = (one.partition(":") for one in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            version, status = line.split(" ")[:2]
            length = int(headers.get("content-length", "-1"))
            answer_status = int(status)
        except ValueError:
            raise BrokenAnswer("the head of an answer is none") from None
        if not version.startswith("HTTP/1."):
            raise BrokenAnswer("an answer does not begin with its version")
        del self._buffer[: end + 4]
        if answer_status < 200:
            return self.receive(max(0.0, deadline - time.monotonic()))
        return Answer(answer_status, headers, self._body(length, headers, deadline))

    def exchange(self, data: bytes, at_least: int = 1, timeout_s: float = TIMEOUT_S) -> Exchange:
        """Sends `data` and reads `at_least` answers, and whatever comes within a moment of them."""
        found = Exchange()
        self.send(data)
        try:
            while True:
                patience_s = timeout_s if len(found.answers) < at_least else 0.05
                answer = self.receive(patience_s)
                if answer is None:
                    found.closed = True
                    break
                found.answers.append(answer)
        except TimeoutError:
            found.rest = bytes(self._buffer)
        except ConnectionError:
            found.closed = True
        return found

    def _body(self, length: int, headers: dict[str, str], deadline: float) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks(deadline)
        while length < 0 or len(self._buffer) < length:
            if not self._fill(deadline):
                if length < 0:
                    length = len(self._buffer)
                    break
                raise BrokenAnswer("the connection ended within the body of an answer")
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _chunks(self, deadline: float) -> bytes:
        body = b""
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                if not self._fill(deadline):
                    raise BrokenAnswer("the connection ended within a chunk")
            size = int(self._buffer[:end].split(b";")[0], 16)
            while len(self._buffer) < end + 4 + size:
                if not self._fill(deadline):
                    raise BrokenAnswer("the connection ended within a chunk")
            body += bytes(self._buffer[end + 2 : end + 2 + size])
            del self._buffer[: end + 4 + size]
            if size == 0:
                return body

    def _fill(self, deadline: float) -> bool:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        data = self._socket.recv(65_536)
        self._buffer += data
        return bool(data)


def post(
    body: bytes,
    content_type: bytes | None = b"application/json",
    request_id: str = "",
    extra: bytes = b"",
) -> bytes:
    """A whole POST /classify. extra: more header lines, each with its line end."""
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    if content_type is not None:
        head += b"Content-Type: " + content_type + b"\r\n"
    if request_id:
        head += b"X-Request-ID: " + request_id.encode() + b"\r\n"
    return head + extra + b"\r\n" + body
