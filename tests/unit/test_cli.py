"""The command line, as a person uses it: real commands against a real small server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from deployments import __version__
from deployments.cli import app
from rayclassify_client.asking import BATCH_SIZE

# The name in the package is the command.
classify = import_module("deployments.cli.classify")
ROOT = Path(__file__).resolve().parents[2]


def run(*args: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(args), input=stdin)


class StandIn:
    """Answers as the service does. `refusals` requests get 429 first."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refusals = 0
        self.retry_after_s = 0
        self.keys: set[str | None] = set()
        self.url = ""

    async def classify(self, request: Request) -> Response:
        body = await request.json()
        self.keys.add(request.headers.get("x-api-key"))
        if self.refusals > 0:
            self.refusals -= 1
            error = {"code": "overloaded", "message": "too much at once"}
            return JSONResponse({"error": error}, 429, {"Retry-After": f"{self.retry_after_s}"})
        self.bodies.append(body)
        return JSONResponse([self.answer(text) for text in body["text"]])

    @staticmethod
    def answer(text: str) -> dict[str, Any]:
        if text == "bad" or not text.strip():
            return {"error": {"code": "empty_text", "message": "text is empty. Send one."}}
        return {
            "label": "positive",
            "score": 0.9,
            "scores": {"positive": 0.9, "negative": 0.1},
            "tokens": 3,
            "truncated": False,
        }


@pytest.fixture
def service() -> Iterator[StandIn]:
    stand_in = StandIn()
    routes = [Route("/classify", stand_in.classify, methods=["POST"])]
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off")
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        stand_in.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield stand_in
        server.should_exit = True
        thread.join()


def test_version() -> None:
    assert run("--version").output.strip() == f"rayclassify {__version__}"


@pytest.mark.parametrize("command", [(), ("serve",), ("check",), ("classify",)])
def test_help_shows_an_example(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "rayclassify" in result.output


def test_check_of_our_own_config() -> None:
    result = run("check", str(ROOT / "serve_config.yaml"))
    assert (result.exit_code, result.output.strip()) == (0, "ok")


@pytest.fixture
def misspelt(tmp_path: Path) -> Path:
    config = (ROOT / "serve_config.yaml").read_text(encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(config.replace("ray_actor_options:", "ray_actor_optons:", 1))
    return path


def test_check_names_the_near_key(misspelt: Path) -> None:
    result = run("check", str(misspelt))
    assert result.exit_code == 2
    assert "ray_actor_optons" in result.output
    assert "ray_actor_options" in result.output


def test_check_as_json(misspelt: Path) -> None:
    (problem,) = json.loads(run("check", str(misspelt), "--json").stdout)
    assert problem.keys() == {"path", "message"}
    assert "ray_actor_optons" in problem["path"]
    assert json.loads(run("check", str(ROOT / "serve_config.yaml"), "--json").stdout) == []


def test_serve_refuses_what_check_refuses(misspelt: Path) -> None:
    result = run("serve", str(misspelt))
    assert result.exit_code == 2
    assert "ray_actor_options" in result.output


def test_a_missing_config_is_one_line(tmp_path: Path) -> None:
    result = run("check", str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1


def test_classify_chinese_as_json_lines(service: StandIn) -> None:
    result = run("classify", "质量很好，会再来", "再也不买了", "--url", service.url)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["质量很好，会再来", "再也不买了"]
    assert rows[0]["label"] == "positive"
    assert "质量" in result.stdout  # readable, not \\u escapes


def test_top_k_is_passed_on(service: StandIn) -> None:
    run("classify", "好", "--url", service.url + "/", "--top-k", "1")
    (body,) = service.bodies
    assert (body["text"], body["top_k"]) == (["好"], 1)
    assert 0 < body["timeout_ms"] <= 1_000 * classify.TIMEOUT_S


def test_a_bad_text_fails_alone(service: StandIn) -> None:
    result = run("classify", "good", "bad", "好", "--url", service.url, "--json")
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["error" in row for row in rows] == [False, True, False]


def test_a_file_goes_in_batches_and_comes_back_in_order(service: StandIn, tmp_path: Path) -> None:
    texts = [f"第{i}条" for i in range(3 * BATCH_SIZE + 1)]
    path = tmp_path / "texts.txt"
    path.write_text("\ufeff" + "\r\n".join(texts) + "\n", encoding="utf-8")
    result = run("classify", "--file", str(path), "--url", service.url)
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == texts
    assert sorted(len(body["text"]) for body in service.bodies) == [1] + 3 * [BATCH_SIZE]


def test_stdin(service: StandIn) -> None:
    result = run("classify", "-", "--url", service.url, stdin="第一行\n第二行")
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["第一行", "第二行"]


def test_a_line_in_is_a_line_out_be_it_blank(service: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n好\n   \n\n坏\n\n", encoding="utf-8")
    result = run("classify", "--file", str(path), "--json", "--url", service.url)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["", "好", "   ", "", "坏", ""]
    assert ["error" in row for row in rows] == [True, False, True, True, False, True]
    assert result.exit_code == 1


def test_429_is_waited_out(service: StandIn) -> None:
    service.refusals = 2
    result = run("classify", "好", "--url", service.url)
    assert result.exit_code == 0, result.output
    assert len(service.bodies) == 1


def test_an_endless_429_is_told_per_text(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "TIMEOUT_S", 1.0)
    service.refusals = 100
    result = run("classify", "好", "--url", service.url)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "overloaded"


def test_nobody_there_is_one_line_with_the_cure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = run("classify", "好", "--url", url)
    assert result.exit_code == 3
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert url in line
    assert "rayclassify serve" in line


def test_somebody_else_there(service: StandIn) -> None:
    result = run("classify", "好", "--url", f"{service.url}/elsewhere")
    assert result.exit_code == 3
    assert "404" in result.stderr
    assert "--url" in result.stderr


def test_what_can_not_be_read(tmp_path: Path, service: StandIn) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("naïve\n".encode("latin-1"))
    unread = run("classify", "-f", str(latin), "--url", service.url)
    assert unread.exit_code == 2
    assert "line 1 is not UTF-8" in unread.stderr
    assert run("classify", "-f", str(tmp_path / "none")).exit_code == 2
    assert run("classify", "text", "-f", str(latin)).exit_code == 2
    empty = run("classify", "-", "--url", service.url, stdin="")
    assert empty.exit_code == 1
    assert "empty" in empty.stderr


def test_a_table_on_a_terminal(service: StandIn) -> None:
    texts = ["[b]好" + "长" * 90, "bad"]
    with on_terminal("classify", *texts, "--url", service.url) as (process, terminal):
        text = read_all(terminal)
    assert process.returncode == 1
    assert "[b]好长" in text
    assert "…" in text
    assert "90.0%" in text
    assert "text is empty" in text


def test_a_progress_bar_stays_out_of_a_pipe(service: StandIn) -> None:
    texts = "".join(f"{i}\n" for i in range(200)).encode()
    with on_terminal(
        "classify", "-", "--url", service.url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as (process, terminal):
        piped, _ = process.communicate(texts)
        shown = read_all(terminal)
    assert [json.loads(line)["text"] for line in piped.splitlines()] == texts.decode().split()
    assert "classifying" in shown
    assert "label" not in shown


@contextmanager
def on_terminal(*args: str, **streams: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Our command with a terminal for the streams not named, and the terminal's other end."""
    parent, child = pty.openpty()
    env = {**os.environ, "COLUMNS": "100", "LINES": "20", "TERM": "xterm"}
    command = [sys.executable, "-m", "deployments.cli", *args]
    streams = {"stdin": child, "stdout": child, "stderr": child, **streams}
    with subprocess.Popen(command, env=env, **streams) as process:
        os.close(child)
        yield process, parent
    os.close(parent)


def read_all(terminal: int) -> str:
    shown = b""
    # Linux says "input/output error" where the other end is closed.
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 65536):
            shown += chunk
    return shown.decode()


def test_check_and_classify_do_without_torch_and_ray() -> None:
    code = (
        "import sys, deployments.cli; "
        "print([m for m in ('ray', 'torch', 'transformers', 'requests') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_service_that_takes_too_long_is_asked_once_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A socket that takes requests and never answers."""
    monkeypatch.setattr(classify, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = run("classify", "好", "--url", url)
        silent.setblocking(False)
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                taken += 1
    assert result.exit_code == 3
    assert f"{url} did not answer within 0.2 s. Send less at a time, or" in result.output
    assert taken == 1


def test_a_key_is_sent_from_the_environment(
    service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("classify", "a", "--url", service.url)
    monkeypatch.setenv("RAYCLASSIFY_KEY", "rck_secret")
    result = run("classify", "a", "--url", service.url)
    assert service.keys == {None, "rck_secret"}
    assert "rck_secret" not in result.output
    assert "rck_secret" not in run("classify", "--help").output


def test_a_wait_until_tomorrow_is_told_and_not_waited_for(service: StandIn) -> None:
    service.refusals, service.retry_after_s = 1, 40_000
    result = run("classify", "a", "--url", service.url)
    assert result.exit_code == 1
    assert "too much at once" in result.output
    assert service.bodies == []
