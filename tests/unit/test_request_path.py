"""One default request, traced: which of our files it runs code in, and in what order."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import without_ray

from deployments.classifier import Classifier
from deployments.settings import Settings

PACKAGE = Path(__file__).parents[2] / "deployments"
MAP = PACKAGE.parent / "docs" / "architecture.md"
MAX_FILES = 32


# Named, so that every machine takes the same way.
ENGINE = {"engine": {"name": "torch", "device": "cpu", "dtype": "float32", "num_threads": 1}}


class Trace:
    """Functions of ours that were called, the first time each, in order."""

    def __init__(self) -> None:
        self.calls: dict[str, None] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
            if not name.startswith("<"):
                self.calls.setdefault(f"{path.relative_to(PACKAGE)}:{name}")

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(call.partition(":")[0] for call in self.calls))


@asynccontextmanager
async def service() -> AsyncIterator[tuple[httpx.AsyncClient, Classifier]]:
    """All three deployments' classes in this process, behind our application."""
    settings = Settings.model_validate(ENGINE)
    classifier = Classifier(settings)
    there: Any = classifier
    tokenizer = without_ray.tokenizer(settings, classifiers=there)
    await tokenizer._chain.loading
    transport = httpx.ASGITransport(tokenizer.__serve_build_asgi_app__())
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client, classifier


async def traced() -> Trace:
    trace = Trace()
    async with service() as (client, classifier):
        body = {"text": "这是一个示例文本"}
        for _ in range(2):
            assert (await client.post("/classify", json=body)).status_code == 200
        thread = classifier._batcher._run
        await thread(sys.setprofile, trace)
        sys.setprofile(trace)
        try:
            answer = await client.post("/classify", json=body)
        finally:
            sys.setprofile(None)
            await thread(sys.setprofile, None)
    assert answer.json()["label"] in {"positive", "negative"}
    return trace


def test_the_map_in_the_documentation_names_each_file_in_order() -> None:
    trace = asyncio.run(traced())
    page = MAP.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| \[(\S+)\]\(\S+\) \| `(\S+)` \|", page, re.MULTILINE)
    assert [file for file, _ in rows] == [file for file, _ in dict(rows).items()], "a file twice"
    assert {file for file, _ in rows} == set(trace.files)
    called = list(trace.calls)
    places = [called.index(f"{file}:{function}") for file, function in rows]
    assert places == sorted(places)
    assert len(trace.files) <= MAX_FILES
