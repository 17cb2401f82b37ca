"""The card of a model that was made here: what of, how, how good. README.md beside its weights.

The form is the Hugging Face hub's: front matter, then Markdown.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
import transformers
import yaml

from deployments.engines.machine import cpu_count
from deployments.optimise.labelled import Labelled

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says.

    command: what made the model, as it would be asked again. data: what each table was for, and
    its rows. recipe, figures: names and values, in order; figures carry their intervals.
    notes: what a reader should know, a sentence each.
    """

    title: str
    base: str
    command: str
    data: Sequence[tuple[str, Labelled]]
    labels: Sequence[str]
    recipe: Rows
    figures: Rows
    notes: Sequence[str] = ()

    def write(self, directory: Path) -> Path:
        """Writes README.md, and returns where."""
        path = directory / "README.md"
        path.write_text(self.text(), encoding="utf-8")
        return path

    def text(self) -> str:
        """The card. Texts of the tables are in it as their SHA-256 only."""
        front = {
            "pipeline_tag": "text-classification",
            "library_name": "transformers",
            "base_model": self.base,
        }
        data = [(what, f"{len(rows):,}", f"`{rows.sha256()}`") for what, rows in self.data]
        parts = [
            f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
            f"# {self.title}",
            f"Made of `{self.base}`. Labels: {', '.join(f'`{label}`' for label in self.labels)}.",
            f"```bash\n{self.command}\n```",
            "## Figures",
            _table(("", "value"), self.figures),
            "## Data",
            _table(("table", "rows", "sha256 of its sorted rows"), data),
            *(["## Recipe", _table(("", "value"), self.recipe)] if self.recipe else []),
            _made_on(),
        ]
        if self.notes:
            parts += ["## Limits", "\n".join(f"- {note}" for note in self.notes)]
        return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: str) -> str:
    return str(value).replace("|", "\\|")


def _made_on() -> str:
    gpu = f" and a {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return (
        f"Made on {date.today()} with {cpu_count()} cores ({platform.machine()}){gpu}; {versions}."
    )
