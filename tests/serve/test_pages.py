"""Every Python and curl of the pages, run as it stands there, on the shipped config.

README.md and docs/ray.md have tests of their own, which also know what is printed.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from pathlib import Path

import pytest
from running import ROOT, Service, read_config

pytestmark = pytest.mark.slow

ALL = (ROOT / "README.zh-CN.md", ROOT / "client/README.md", *(ROOT / "docs").rglob("*.md"))
PAGES = sorted(page for page in ALL if page.name not in {"ray.md"} and page.parent.name != "log")
# A file of the reader's, a key that is made there, a text that pages have nothing to say of.
NOT_ALONE = re.compile(r"reviews\.|RAYCLASSIFY_KEY|https?://(?!localhost|127\.0\.0\.1)|:9000")


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (str(page.relative_to(ROOT)), block)
        for page in PAGES
        for block in re.findall(
            rf"(?ms)^```{language}\n(.*?)^```", page.read_text(encoding="utf-8")
        )
    ]


PYTHON = blocks("python")
CURLS = [
    (page, line)
    for page, block in blocks("bash")
    for line in block.splitlines()
    if line.startswith("curl ") and not NOT_ALONE.search(line)
]


@pytest.fixture(scope="module", autouse=True)
def running(service: Service) -> None:
    config = read_config()
    (app,) = config["applications"]
    app["args"]["explain"] = {"enabled": True}
    # There from the start: its own start may take longer than a request.
    scaling = {"min_replicas": 1, "max_replicas": 1}
    explainer = {"name": "Explainer", "autoscaling_config": scaling}
    app["deployments"].append(explainer | {"ray_actor_options": {"num_cpus": 0.1}})
    service.deploy(config)


def here(code: str, service: Service) -> str:
    return re.sub(r"(localhost|127\.0\.0\.1):8000", f"127.0.0.1:{service.port}", code)


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[page for page, _ in PYTHON])
def test_python_prints_labels(
    service: Service, page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a block writes is nothing to leave in a checkout; the demo model is found by its path.
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(here(code, service), page, "exec"), {"__name__": "__main__"})  # noqa: S102
    if "print(" in code:
        assert re.search(r"positive|negative", printed.getvalue())
    if "empty_text" in code or "['很满意', ''" in code:
        assert "'empty_text'" in printed.getvalue()


@pytest.mark.parametrize(("page", "line"), CURLS, ids=[page for page, _ in CURLS])
def test_curl_gets_an_answer(service: Service, page: str, line: str) -> None:
    """A label; or, for a model that reads no pairs, the error that says so."""
    command = here(line, service).split(" -o /dev/null")
    asked = "".join(command) if len(command) == 2 else command[0]
    told = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout
    answer = json.loads(told[told.index("{") :])
    if "text_pair" in line:
        assert answer.get("label") or answer["error"]["code"] == "invalid_input"
    else:
        assert answer["label"] in {"positive", "negative"}
    if " -sD -" in line:
        assert re.search(r"^x-inference-time: \d+", told, re.MULTILINE | re.IGNORECASE)


def test_there_is_something_to_run() -> None:
    assert {"docs/index.md", "docs/howto.md", "docs/zh/start.md"} <= {page for page, _ in PYTHON}
    assert {"docs/index.md", "docs/faq.md", "docs/zh/faq.md"} <= {page for page, _ in CURLS}
