"""The image, built and run: its answers, KubeRay's probes, its SBOM.

Takes minutes, 6 GB of disk, and docker or podman. What a network needs beside (a mirror, pip's
configuration) stands in IMAGE_OPTIONS, as for scripts/build_image.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.image.proof import PROBES

ROOT = Path(__file__).resolve().parents[2]
ENGINES = [name for name in ("docker", "podman") if shutil.which(name)]


def engine() -> str | None:
    """The first that builds here; a command line without its daemon doesn't."""
    for name in ENGINES:
        if subprocess.run([name, "ps"], capture_output=True, check=False).returncode == 0:
            return name
    return None


@pytest.mark.trials
@pytest.mark.timeout(3600)
def test_the_image_keeps_its_promises(tmp_path: Path) -> None:
    found = engine()
    if found is None:
        why = f"`{ENGINES[0]} ps` fails" if ENGINES else "neither is installed"
        pytest.skip(f"needs docker or podman: {why}")
    options = shlex.split(os.environ.get("IMAGE_OPTIONS", "--variant cpu"))
    command = [sys.executable, "scripts/build_image.py", "--engine", found, *options]
    done = subprocess.run(
        [*command, "--output", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    report = (tmp_path / "report.md").read_text("utf-8")
    kept = re.findall(r"\| (yes|no) \|$", report, re.MULTILINE)
    assert kept == ["yes"] * (7 + len(PROBES))
    bom = json.loads((tmp_path / "sbom.cdx.json").read_text("utf-8"))
    purls = {component["purl"].split("@")[0] for component in bom["components"]}
    assert {
        "pkg:pypi/rayclassify",
        "pkg:pypi/ray",
        "pkg:pypi/torch",
        "pkg:deb/debian/wget",
    } <= purls
    assert not any("cyclonedx" in purl for purl in purls)
