"""The README's Python, run as it stands there."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from running import ROOT, Service, read_config

pytestmark = pytest.mark.slow

BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.fixture(scope="module", autouse=True)
def running(service: Service) -> None:
    service.deploy(read_config())


def run(code: str) -> list[str]:
    """Executes `code` and returns the lines it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own README
    return printed.getvalue().splitlines()


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
