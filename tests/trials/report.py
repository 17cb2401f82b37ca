"""docs/reliability.md out of docs/reliability.json."""

from __future__ import annotations

from typing import Any

from .soak_report import soak_lines

IMAGES = "images"

Modes = dict[str, dict[str, Any]]

_INTRO = """# Reliability

What the service promises, what was done to break it, and what became of it. Made by
`scripts/torture.py`, which runs the service, the load and the faults on one machine; the same
trials, shortened, are tests in `tests/e2e` and `tests/serve`.
"""


def page(modes: Modes) -> str:
    """The whole page: one table a mode, under the machine it was run on."""
    return "\n".join([_INTRO, *(_section(name, part) for name, part in modes.items())])


def _section(name: str, part: dict[str, Any]) -> str:
    machine = part["machine"]
    how_long = "shortened, " if part["settings"].get("quick") else ""
    whole = "" if part["complete"] else " **Interrupted: not all of it.**"
    lines = [
        f"## {name.capitalize()}",
        "",
        f"`python scripts/torture.py {name}`, {how_long}{machine['cores']} cores of "
        f"{machine['cpu']}, commit {machine['commit']}, {machine['measured_at']}.{whole}",
        "",
        "| promise | how tried | cases | result | kept |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(f['promise'])} | {_cell(f['how'])} | {f['cases']:,} | {_cell(f['result'])} | "
        f"{'yes' if f['kept'] else '**no**'} |"
        for f in part["findings"]
    ]
    if name == "soak":
        lines += soak_lines(part["figures"], IMAGES)
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
