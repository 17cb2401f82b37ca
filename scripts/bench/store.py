"""docs/benchmark.json: one part per mode, each with the machine that it was measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import machine


class Store:
    """The file, read once and written after every measurement, so that an end keeps what is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modes: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.modes = json.loads(path.read_text(encoding="utf-8"))["modes"]

    def begin(self, mode: str, settings: dict[str, Any]) -> dict[str, Any]:
        """An empty part in the place of the mode's last one."""
        part = {"machine": machine.stamp(), "settings": settings, "complete": False}
        self.modes[mode] = part
        return part

    def is_done(self, mode: str) -> bool:
        """Whether this mode was measured to its end, with this commit, on a machine like this."""
        part = self.modes.get(mode, {})
        now, then = machine.stamp(), part.get("machine", {})
        same = all(now[key] == then.get(key) for key in ("cpu", "cores", "versions", "commit"))
        return bool(part.get("complete")) and same

    def save(self) -> None:
        text = json.dumps({"modes": self.modes}, ensure_ascii=False, indent=1)
        scratch = self.path.with_suffix(".tmp")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text + "\n", encoding="utf-8")
        scratch.replace(self.path)
