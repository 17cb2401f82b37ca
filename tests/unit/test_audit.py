"""The audit log: a line per decision, no text, and a chain that shows what was changed."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from deployments.cli import app
from deployments.pipeline.errors import PredictionFailed, ServiceError
from deployments.pipeline.pipeline import MODEL
from deployments.pipeline.types import TextInput
from deployments.privacy.audit import AuditLog, broken_at, derived_key, read_secret, text_digest
from deployments.settings import AuditSettings

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105
TEXT = "张三的住址是幸福路一号"
ANSWER = {"label": "positive", "score": 0.75, "scores": {"positive": 0.75}, "tokens": 9}


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture
def open_log(tmp_path: Path, secret_file: Path) -> Any:
    def open_it(**settings: Any) -> AuditLog:
        given = {"directory": str(tmp_path / "audit"), "secret_file": str(secret_file)} | settings
        return AuditLog(AuditSettings(**given))

    return open_it


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_decision_is_one_line_without_its_text(open_log: Any) -> None:
    log = open_log()
    log.engine = "torch float32"
    inputs: list[Any] = [TextInput(TEXT), TextInput(TEXT, "对吗"), ServiceError("no text at all")]
    answer = {**ANSWER, MODEL: "40aa"}
    log.record(inputs, [answer, PredictionFailed("no"), inputs[2]], "r1", "shop")
    assert answer == ANSWER  # callers are not told
    log.close()
    first, second = lines_of(log.path)
    key = derived_key(SECRET.encode(), "text")
    time = first.pop("time")
    assert time.endswith("Z")
    assert first == {
        "n": 0,
        "request_id": "r1",
        "key_id": "shop",
        "text": hmac.new(key, TEXT.encode(), hashlib.sha256).hexdigest(),
        "label": "positive",
        "tokens": 9,
        "score": 0.75,
        "model": "40aa",
        "engine": "torch float32",
    }
    assert (second["n"], second["error"], second["model"]) == (1, "prediction_failed", None)
    assert "label" not in second
    content = log.path.read_text(encoding="utf-8")
    assert not any(part in content for part in (TEXT, TEXT[:4], json.dumps(TEXT)[1:-1], "对吗"))


def test_scores_can_be_left_out(open_log: Any) -> None:
    log = open_log(scores=False)
    log.record([TextInput(TEXT)], [ANSWER], None, None)
    log.close()
    (line,) = lines_of(log.path)
    assert "score" not in line
    assert line["label"] == "positive"


def test_the_halves_of_a_pair_cannot_be_shifted() -> None:
    key = b"k" * 32
    digests = {
        text_digest(key, "ab", "c"),
        text_digest(key, "a", "bc"),
        text_digest(key, "abc"),
        text_digest(key, "abc", ""),
    }
    assert len(digests) == 4


def test_another_secret_gives_another_hash() -> None:
    assert text_digest(derived_key(b"a" * 16, "text"), "好") != text_digest(
        derived_key(b"b" * 16, "text"), "好"
    )


def test_only_the_owner_may_read_it(open_log: Any) -> None:
    log = open_log()
    log.close()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_large_files_are_put_aside_and_the_oldest_deleted(open_log: Any) -> None:
    log = open_log(max_file_bytes=60_000, max_files=3, chain=True)
    for _ in range(1_000):
        log.record([TextInput(TEXT)], [ANSWER], "r", None)
    log.close()
    files = sorted(log.path.parent.iterdir(), reverse=True)  # .2 .1 and the one written to
    assert len(files) == 3
    assert all(file.stat().st_size <= 60_000 for file in files)
    numbers = [line["n"] for file in files for line in lines_of(file)]
    assert numbers == list(range(1_000))[-len(numbers) :]
    first = numbers[0]
    assert broken_at(files, SECRET.encode(), first) == (len(numbers) - 1, None)
    count, problem = broken_at(files, SECRET.encode())
    assert (count, f"is number {first} where 0 should" in (problem or "")) == (0, True)


@pytest.fixture
def chain(open_log: Any) -> Path:
    """A file of 10 chained lines."""
    log = open_log(chain=True)
    for i in range(5):
        log.record([TextInput(f"{TEXT}{i}"), TextInput("好")], [ANSWER, ANSWER], f"r{i}", None)
    log.close()
    return Path(log.path)


def test_a_chain_that_nobody_touched_holds(chain: Path) -> None:
    assert broken_at([chain], SECRET.encode()) == (10, None)


@pytest.mark.parametrize(
    ("change", "at"),
    [
        (lambda lines: [*lines[:3], lines[3].replace(b"positive", b"negative"), *lines[4:]], 3),
        (lambda lines: [lines[0].replace(b"0.75", b"0.76"), *lines[1:]], 0),
        (lambda lines: [*lines[:4], *lines[5:]], 4),
        (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], 4),
        (lambda lines: [*lines[:4], lines[4], *lines[4:]], 5),
        (lambda lines: [*lines[:6], lines[0], *lines[6:]], 6),
        (lambda lines: [*lines[:6], b"no line", *lines[6:]], 6),
        (lambda lines: [*lines[:9], lines[9][:-3] + b'00"}'], 9),
    ],
)
def test_what_was_changed_is_found(chain: Path, change: Any, at: int) -> None:
    chain.write_bytes(b"\n".join(change(chain.read_bytes().splitlines())) + b"\n")
    count, problem = broken_at([chain], SECRET.encode())
    assert count == at
    assert problem is not None
    assert f"line {at + 1}:" in problem


def test_a_chain_without_its_beginning_is_told(chain: Path, secret_file: Path) -> None:
    """Else one record could be forged, and those before it taken away."""
    lines = chain.read_bytes().splitlines(keepends=True)[2:]
    lines[0] = lines[0].replace(b"positive", b"negative")
    chain.write_bytes(b"".join(lines))
    asked = ["audit", "verify", str(chain), "--secret-file", str(secret_file)]
    told = CliRunner().invoke(app, asked)
    assert (told.exit_code, "number 2 where 0 should" in told.output) == (1, True)
    assert "--first" in told.output
    rotated = CliRunner().invoke(app, [*asked, "--first", "2"])
    assert (rotated.exit_code, "Number 2, on which" in rotated.output) == (0, True)


def test_a_chain_under_another_secret_does_not_hold(chain: Path) -> None:
    assert broken_at([chain], b"another secret, as long")[0] == 0


def test_a_log_without_chain_says_so(open_log: Any) -> None:
    log = open_log()
    log.record([TextInput(TEXT)], [ANSWER], "r", None)
    log.close()
    count, problem = broken_at([log.path], SECRET.encode())
    assert (count, "args.audit.chain" in (problem or "")) == (0, True)


def test_a_disk_that_refuses_is_told_once_counted_and_survived(
    open_log: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(chain=True)
    log.record([TextInput(TEXT)], [ANSWER], "r0", None)
    write = os.write
    taken: list[int] = []

    def full(place: int, data: bytes) -> int:
        """As a disk that has room for 100 bytes more."""
        if taken:
            raise OSError(28, "No space left on device")
        taken.append(write(place, data[:100]))
        return taken[-1]

    wait_until(lambda: log._n == 1)
    monkeypatch.setattr(os, "write", full)
    for _ in range(3):
        log.record([TextInput(TEXT)], [ANSWER], "r1", None)
    wait_until(lambda: log.lost == 3)
    monkeypatch.setattr(os, "write", write)
    log.record([TextInput(TEXT)], [ANSWER], "r2", None)
    log.close()
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert "OSError" in told[0]
    assert [line["request_id"] for line in lines_of(log.path)] == ["r0", "r2"]
    assert lines_of(log.path)[1]["lost_before"] == 3
    assert broken_at([log.path], SECRET.encode()) == (2, None)
    assert taken == [100]


def test_what_callers_say_of_themselves_is_no_text_and_stops_no_log(open_log: Any) -> None:
    log = open_log(chain=True)
    log.record([TextInput(TEXT)], [ANSWER], "my wife Anna has cancer", "\ud800")
    log.record([TextInput(TEXT)], [ANSWER], "r1", "key:shop")
    log.close()
    assert [(line["request_id"], line["key_id"]) for line in lines_of(log.path)] == [
        ("-", "?"),
        ("r1", "key:shop"),
    ]
    assert log.lost == 0


def test_what_cannot_be_written_down_is_counted_and_the_next_is_written(open_log: Any) -> None:
    log = open_log()
    log.record([TextInput(TEXT)], [{**ANSWER, "label": "\ud800"}], "r0", None)
    wait_until(lambda: log.lost == 1)
    log.record([TextInput(TEXT)], [ANSWER], "r1", None)
    log.close()
    assert [line["request_id"] for line in lines_of(log.path)] == ["r1"]


def test_one_file_alone_could_not_be_put_aside(open_log: Any) -> None:
    with pytest.raises(ValidationError, match="max_files"):
        open_log(max_files=1)


@pytest.mark.parametrize(
    ("content", "part"), [(None, "can't be read"), ("short", "it needs 16 or more")]
)
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: str | None, part: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=part):
        read_secret(path)


def test_a_directory_without_a_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="secret_file"):
        AuditLog(AuditSettings(directory=str(tmp_path)))


class TestCommands:
    def test_verify_takes_the_files_of_all_replicas_in_any_order(
        self, open_log: Any, secret_file: Path, tmp_path: Path
    ) -> None:
        for n, replica in enumerate("ab"):
            log = open_log(max_file_bytes=60_000, chain=True, directory=str(tmp_path / replica))
            for _ in range(500):
                log.record([TextInput(TEXT)], [ANSWER], "r", None)
            log.close()
            for file in (tmp_path / replica).iterdir():
                _, mark, number = file.name.partition(".jsonl")
                file.rename(tmp_path / f"audit-{n}{mark}{number}")
        files = [*map(str, tmp_path.glob("audit-*.jsonl*"))]
        assert len(files) > 4
        asked = ["audit", "verify", "--secret-file", str(secret_file)]
        run = CliRunner().invoke(app, [*asked, *sorted(files)])
        assert (run.exit_code, run.output) == (0, "ok: 1000 lines, none changed.\n")
        assert CliRunner().invoke(app, [*asked, *files, "--first", "3"]).exit_code == 2

    def test_verify(self, chain: Path, secret_file: Path) -> None:
        run = CliRunner().invoke(
            app, ["audit", "verify", str(chain), "--secret-file", str(secret_file)]
        )
        assert (run.exit_code, run.output) == (0, "ok: 10 lines, none changed.\n")

    def test_verify_a_changed_one(self, chain: Path, secret_file: Path) -> None:
        chain.write_bytes(chain.read_bytes().replace(b"positive", b"negative", 1))
        run = CliRunner().invoke(
            app, ["audit", "verify", str(chain), "--secret-file", str(secret_file)]
        )
        assert run.exit_code == 1
        assert "0 lines are as they were written; then" in run.output

    def test_a_text_is_found_by_its_hash(self, chain: Path, secret_file: Path) -> None:
        run = CliRunner().invoke(
            app, ["audit", "hash", f"{TEXT}3", "--secret-file", str(secret_file)]
        )
        (line,) = (line for line in lines_of(chain) if line["text"] == run.output.strip())
        assert line["request_id"] == "r3"

    def test_no_secret(self, chain: Path) -> None:
        run = CliRunner().invoke(app, ["audit", "verify", str(chain), "--secret-file", os.devnull])
        assert run.exit_code == 2
        assert "it needs 16 or more" in run.output
