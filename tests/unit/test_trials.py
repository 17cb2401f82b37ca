"""What the trials of scripts/torture.py judge by: each must be able to say no."""

from __future__ import annotations

import io
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from deployments.bench.client import Answer, BrokenAnswer
from deployments.deploying.rates import read_samples
from scripts.bench.store import Store
from tests.trials import command
from tests.trials.failover import Doors
from tests.trials.growth import MAX_ROUNDS, Levelling, rounds_until_level
from tests.trials.machines import Machine, Machines, why_not
from tests.trials.raw_http import Connection
from tests.trials.session import Session
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


def keeps(name: str, kept: bool) -> Callable[[Session], None]:
    """A mode that finds one promise kept, or not."""

    def mode(session: Session) -> None:
        with session.mode(name, 1) as part:
            part.add("a promise", "how", 1, "a result", kept)

    return mode


def stopped(session: Session) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("what", "code", "found"),
    [
        (None, command.BROKEN, {"good", "bad"}),
        (["good"], 0, {"good"}),
        (["good", "good"], 0, {"good"}),
        (["bad"], command.BROKEN, {"bad"}),
        (["report"], 0, set()),
        (["good", "stops", "bad"], 130, {"good"}),
    ],
)
def test_a_run_ends_with_what_its_modes_found(
    what: list[str] | None, code: int, found: set[str], tmp_path: Path
) -> None:
    known = {"good": keeps("good", kept=True), "bad": keeps("bad", kept=False)}
    if what and "stops" in what:
        known["stops"] = stopped
    session = Session(Store(tmp_path / "found.json"), Console(file=io.StringIO()))
    published: list[set[str]] = []
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(typer.Exit) as ended:
            command.run(known, what, session, lambda: published.append(set(session.store.modes)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.exit_code == code
    assert published == [found]
    assert set(Store(tmp_path / "found.json").modes) == found


def test_a_mode_that_nobody_knows_is_a_wrong_word(tmp_path: Path) -> None:
    session = Session(Store(tmp_path / "found.json"), Console(file=io.StringIO()))
    with pytest.raises(typer.BadParameter, match="modes: good, report, all"):
        command.run({"good": keeps("good", kept=True)}, ["godo"], session, lambda: None)
    assert not (tmp_path / "found.json").exists()


def test_texts_are_counted_by_replica_as_one_may_end_and_vanish() -> None:
    """The old one had 900, and its series stays for a while; the new ones have 30 and 10."""

    def counted(**replicas: tuple[str, int]) -> Any:
        name = "ray_rayclassify_texts_total"
        return read_samples("".join(
            f'{name}{{NodeAddress="{node}",replica="{replica}",stage="parse"}} {n}\n'
            for replica, (node, n) in replicas.items()
        ))  # fmt: skip

    there = Machines.__new__(Machines)
    there.by_name = {
        name: Machine(name, address, "", Path()) for name, address in (("near", "a"), ("far", "b"))
    }
    before = counted(old=("a", 900), new=("a", 5))
    gained = there.texts("parse", counted(new=("a", 35), other=("b", 10)), before)
    assert gained == {"near": 30.0, "far": 10.0}


def test_what_does_not_come_in_time_stands_in_the_log_and_ends_the_trial() -> None:
    class Still(Doors):
        def now_s(self) -> float:
            return 7.0

    doors = Still(Machines.__new__(Machines))
    assert doors.until(lambda: True, "it is there") == 7.0
    with pytest.raises(TimeoutError, match="the end"):
        doors.until(lambda: False, "the end", limit_s=0.0)
    assert doors.log == [(7.0, "it is there"), (7.0, "not within 0 s: the end")]


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_machines_that_can_not_all_be_made_leave_none_behind(tmp_path: Path) -> None:
    """The second gets no place on the wire, while the first already runs something."""

    class Wire:
        def ask(self, name: str, **_: Any) -> None:
            if name == "worker":
                made["head"].run(["sleep", "60"], {})
                raise RuntimeError("no place")
            made["head"] = made["there"].by_name["head"]

    def namespaces() -> set[str]:
        told = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
        return {line.split()[0] for line in told.stdout.splitlines()}

    before, wire = namespaces(), Wire()
    made: dict[str, Any] = {"there": Machines.__new__(Machines)}
    with pytest.raises(RuntimeError, match="no place"), ExitStack() as stack:
        made["there"].__init__(wire, ["worker"], tmp_path, None, stack)
    assert namespaces() <= before
    assert not made["head"].lives()
