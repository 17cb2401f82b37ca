"""What the trials of scripts/torture.py judge by: each must be able to say no."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deployments.bench.client import Answer, BrokenAnswer
from tests.trials.growth import MAX_ROUNDS, Levelling, rounds_until_level
from tests.trials.raw_http import Connection
from tests.trials.throwing import smuggled


def levelling(grown_mb: float, leak_mb: float, noise_mb: float = 20.0) -> Levelling:
    """Of a process that warms up by `grown_mb` and loses `leak_mb` a round."""
    rng = random.Random(3)
    rounds: list[int] = []

    def memory_mb() -> float:
        n = len(rounds)
        warm = grown_mb * (1 - 0.7**n)
        return 900 + warm + leak_mb * n + rng.uniform(0, noise_mb)

    return rounds_until_level(rounds.append, memory_mb)


@pytest.mark.parametrize("grown_mb", [0, 50, 400])
def test_memory_that_only_warms_up_levels_off(grown_mb: float) -> None:
    found = levelling(grown_mb, leak_mb=0)
    assert found.level
    assert 8 <= len(found.after_mb) < MAX_ROUNDS


@pytest.mark.parametrize("leak_mb", [10, 40])
def test_memory_that_is_lost_never_levels_off(leak_mb: float) -> None:
    found = levelling(300, leak_mb)
    assert not found.level
    assert len(found.after_mb) == MAX_ROUNDS
    assert found.growth_mb == pytest.approx(4 * leak_mb, abs=20)


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ([(200, "a")], False),
        ([(200, "a"), (200, "hidden")], False),
        ([(400, None), (200, "hidden")], False),
        ([(200, "a"), (400, None)], False),
        ([], False),
        ([(200, "hidden")], True),
        ([(200, "a"), (200, "b")], True),
        ([(200, "a"), (200, "b"), (200, "hidden")], True),
        ([(200, "a"), (200, "hidden"), (200, "hidden")], True),
    ],
)
def test_a_request_that_two_servers_cut_differently_is_seen(
    answers: list[tuple[int, str | None]], wrong: bool
) -> None:
    found = [Answer(status, {"x-request-id": one} if one else {}, b"{}") for status, one in answers]
    assert smuggled(found) is wrong


@contextmanager
def saying(*parts: bytes) -> Iterator[Connection]:
    """A connection to somebody who says this and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def say() -> None:
            with listener.accept()[0] as client:
                for part in parts:
                    client.sendall(part)

        thread = threading.Thread(target=say)
        thread.start()
        with Connection(listener.getsockname()[1]) as connection:
            yield connection
        thread.join()


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", [(200, b"ab")]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na" * 2, [(200, b"a")] * 2),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            [(200, b"a")],
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", [(204, b"")]),
        (b"HTTP/1.0 400 Bad\r\n\r\nuntil the end", [(400, b"until the end")]),
        (b"", []),
    ],
)
def test_bare_sockets_read_answers_byte_by_byte(
    said: bytes, answers: list[tuple[int, bytes]]
) -> None:
    with saying(*(said[i : i + 1] for i in range(len(said)))) as connection:
        found = connection.exchange(b"", len(answers) + 1)
    assert [(answer.status, answer.body) for answer in found.answers] == answers
    assert found.closed


@pytest.mark.parametrize("said", [b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na"])
def test_what_is_no_whole_answer_is_broken(said: bytes) -> None:
    with saying(said) as connection, pytest.raises(BrokenAnswer):
        connection.receive()
