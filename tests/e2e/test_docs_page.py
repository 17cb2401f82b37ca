"""A real browser opens /docs and classifies a text there, with the network's eyes on it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from chromium import PATIENCE_S, chromium, hosts_asked, needs_chromium
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.wait import WebDriverWait
from starlette.applications import Starlette
from starlette.routing import Mount

from deployments.http.app import create_app
from deployments.pipeline.errors import ServiceError
from deployments.pipeline.types import Answer, TextInput
from deployments.settings import LimitSettings

pytestmark = needs_chromium


class LengthClassifier:
    """Texts over 10 characters are "long"."""

    async def classify_inputs(
        self, inputs: list[TextInput | ServiceError], timeout_s: float | None = None
    ) -> list[Answer | ServiceError]:
        return [
            item
            if isinstance(item, ServiceError)
            else {"label": "long" if len(item.text) > 10 else "short", "score": 1.0}
            for item in inputs
        ]

    async def readiness(self) -> None:
        return None

    async def info(self) -> dict[str, Any]:
        return {"model": "length"}


@pytest.fixture(params=["", "/nlp"], ids=["at-root", "under-a-prefix"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the application is served, by uvicorn on a free port."""
    prefix: str = request.param
    app = create_app(LengthClassifier(), LimitSettings())
    if prefix:
        app = Starlette(routes=[Mount(prefix, app)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while not server.started:
            assert time.monotonic() < deadline, f"uvicorn did not start in {PATIENCE_S} s"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path) as driver:
        yield driver


def test_the_page_classifies_a_text_and_talks_to_nobody_else(
    browser: webdriver.Chrome, address: str
) -> None:
    wait = WebDriverWait(browser, PATIENCE_S)
    browser.get(f"{address}/docs")
    operation = wait.until(
        seen.visibility_of_element_located((By.ID, "operations-Classification-classify"))
    )
    assert "/classify" in operation.text
    assert "Classify one text or a list of texts" in operation.text

    operation.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
    execute = wait.until(seen.element_to_be_clickable((By.CSS_SELECTOR, ".btn.execute")))
    execute.click()
    answer = wait.until(
        seen.visibility_of_element_located((By.CSS_SELECTOR, ".live-responses-table tbody"))
    )
    assert "200" in answer.text
    assert '"label": "long"' in answer.text

    assert browser.get_log("browser") == []
    assert hosts_asked(browser) == {urlsplit(address).netloc}
