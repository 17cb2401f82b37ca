"""A redis-server, Ray's store outside the head: with a password, nothing on disk."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployments.launch.ports import next_port
from scripts.bench.process import started, wait_until


@dataclass(frozen=True, slots=True)
class Redis:
    """Where it listens, and the password that it wants."""

    host: str
    port: int
    password: str

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def says(self, *words: str) -> str:
        """Its answer to a command, in the protocol's own lines (RESP)."""
        with socket.create_connection((self.host, self.port), timeout=5) as there:
            there.sendall(_command("AUTH", self.password) + _command(*words))
            lines = there.makefile("rb")
            lines.readline()  # of AUTH
            return lines.readline().decode().strip()

    def keys(self) -> int:
        """How many it holds."""
        return int(self.says("DBSIZE").lstrip(":"))


@contextmanager
def redis_server(host: str) -> Iterator[Redis]:
    """A redis-server at a free port of that address of ours."""
    with tempfile.TemporaryDirectory() as run:
        there = Redis(host, next_port(), secrets.token_hex(16))
        config = Path(run, "redis.conf")  # not an argument, which everybody on a machine can read
        config.write_text(
            f"bind {host}\nport {there.port}\nrequirepass {there.password}\n"
            f'save ""\nappendonly no\ndir {run}\n',
            encoding="utf-8",
        )
        with (
            Path(run, "log").open("wb") as log,
            started(
                ["redis-server", str(config)], Path(run), ends_alone_s=0.0, stdout=log, stderr=log
            ),
        ):
            wait_until(lambda: _answers(there), "redis-server", 20.0)
            yield there


def _answers(redis: Redis) -> bool:
    try:
        return redis.says("PING") == "+PONG"
    except OSError:
        return False


def _command(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()
