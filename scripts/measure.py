"""Counts the house: lines by folder, the longest module, the README's words, files of a request.

`python scripts/measure.py`, or `make measure`. Lines are all those of a file, blank ones and
comments included.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "deployments"


def lines(folder: Path) -> dict[Path, int]:
    """Python file → its lines, of all below `folder`."""
    return {
        path: path.read_text(encoding="utf-8").count("\n")
        for path in sorted(folder.rglob("*.py"))
        if "__pycache__" not in path.parts
    }


def main() -> None:
    product = lines(PACKAGE)
    by_folder: Counter[str] = Counter()
    for path, n in product.items():
        inside = path.relative_to(PACKAGE)
        by_folder[f"{inside.parts[0]}/" if len(inside.parts) > 1 else "root"] += n
    longest = max(product, key=lambda path: product[path])
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    crossed = re.findall(r"^\| \d+ \| \[(\S+)\]", page, re.MULTILINE)
    table = Table("count", "of", box=None)
    for folder, n in by_folder.most_common():
        table.add_row(f"{n:,}", f"lines in deployments/{'' if folder == 'root' else folder}")
    table.add_row(f"{sum(product.values()):,}", "lines in deployments/, all")
    for name in ("scripts", "tests/trials", "tests"):
        table.add_row(f"{sum(lines(ROOT / name).values()):,}", f"lines in {name}/, all")
    table.add_row(f"{product[longest]:,}", f"lines in the longest module, {longest.name}")
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    table.add_row(f"{words:,}", "words in README.md")
    table.add_row(f"{len(crossed)}", "files in which one request runs code (a test traces them)")
    Console().print(table)


if __name__ == "__main__":
    main()
