"""What a real Ray 2.60 answered, recorded while it served, updated, failed and had no room."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

_ALL: dict[str, Any] = json.loads(
    (Path(__file__).parent / "recorded" / "serve_api.json").read_text(encoding="utf-8")
)


def details(name: str) -> dict[str, Any]:
    """The answer of /api/serve/applications/, to be changed as one likes."""
    found: dict[str, Any] = copy.deepcopy(_ALL[name])
    return found


def nodes() -> dict[str, Any]:
    """`data` of /nodes?view=summary: one node, 0.7 of 2 CPUs free."""
    return details("nodes")


def deployed(name: str, app: str = "classify") -> dict[str, Any]:
    """The config of an application as it was deployed then."""
    config: dict[str, Any] = details(name)["applications"][app]["deployed_app_config"]
    return config
