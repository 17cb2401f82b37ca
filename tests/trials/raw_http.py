"""Bare sockets that speak HTTP/1.1: what no client would send, and how it is answered."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass, field

from deployments.bench.client import Answer, AnswerParser, BrokenAnswer

TIMEOUT_S = 30.0


@dataclass
class Exchange:
    """What became of one connection: its answers in order, and whether the other side closed it."""

    answers: list[Answer] = field(default_factory=list)
    closed: bool = False


class Connection:
    """One connection; blocking, for one thread. A context manager."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = AnswerParser()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Hangs up without a goodbye, in the middle of whatever the other side does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

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
        while not self._parser.answers:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            if data := self._socket.recv(65_536):
                self._parser.feed(data)
                continue
            self._parser.end()
            if self._parser.is_within:
                raise BrokenAnswer("the connection ended within an answer")
            if not self._parser.answers:
                return None
        return self._parser.answers.pop(0)

    def exchange(self, data: bytes, at_least: int = 1, timeout_s: float = TIMEOUT_S) -> Exchange:
        """Sends `data` and reads `at_least` answers, and whatever comes within a moment of them."""
        found = Exchange()
        self.send(data)
        try:
            while not found.closed:
                patience_s = timeout_s if len(found.answers) < at_least else 0.05
                answer = self.receive(patience_s)
                found.closed = answer is None
                found.answers += [answer] if answer else []
        except TimeoutError:
            pass  # the other side waits too
        except ConnectionError:
            found.closed = True
        return found
