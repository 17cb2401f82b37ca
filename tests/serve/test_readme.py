"""The README's curl and Python, run as they stand there."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from typing import Any

import pytest
from running import ROOT, Service, read_config

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def running(service: Service) -> None:
    service.deploy(read_config())


def run(code: str) -> list[str]:
    """Executes `code` and returns the lines it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own README
    return printed.getvalue().splitlines()


def scores(answer: dict[str, Any]) -> list[float]:
    return [answer["score"], *answer["scores"].values()]


def all_but_scores(answer: dict[str, Any]) -> list[Any]:
    return [[*answer], [*answer["scores"]], answer["label"], answer["tokens"], answer["truncated"]]


def test_curl_prints_the_answer_that_stands_below_it(service: Service) -> None:
    ((curl, shown),) = re.findall(r"```bash\n(curl .*?)\n```\s+```json\n(.*?)\n```", README)
    printed = subprocess.run(
        ["bash", "-c", curl.replace("localhost:8000", f"127.0.0.1:{service.port}")],
        capture_output=True,
        check=True,
    ).stdout
    answer, expected = json.loads(printed), json.loads(shown)
    hint = f"below the curl of README.md stands another answer than {answer}"
    assert all_but_scores(answer) == all_but_scores(expected), hint
    # Two digits are shown; bfloat16, where a CPU is faster with it, moves the second.
    assert scores(answer) == pytest.approx(scores(expected), abs=0.02), hint


def test_the_client(service: Service) -> None:
    (client,) = (block for block in BLOCKS if "requests.post" in block)
    assert "localhost:8000" in client
    (label,) = run(client.replace("localhost:8000", f"127.0.0.1:{service.port}"))
    assert label in {"positive", "negative"}


def test_the_handle(service: Service) -> None:
    (handle,) = (block for block in BLOCKS if "get_app_handle" in block)
    first, several, error = run(handle)
    assert (first, several) == ("positive", "['positive', 'negative']")
    assert error.startswith("text is empty")


def test_no_other_python_stands_there() -> None:
    assert len(BLOCKS) == 2
