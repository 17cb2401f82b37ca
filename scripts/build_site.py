"""The documents as a site, in build/site: README.md, docs/, and every file that they link to.

All keep their places in the repository, so that a link means the same on the site and in a
checkout: a folder gets a page that lists its files. A link that leads nowhere, or to a heading that
is not there, fails the build.

Example: `python scripts/build_site.py && python -m http.server -d build/site`; it needs the extra
`docs`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, SITE = ROOT / "build" / "site-src", ROOT / "build" / "site"
PAGES = ("README.md", "README.zh-CN.md", "docs/llms.txt")
_LINK = re.compile(r"""\]\(([^)\s#]+)|(?:src|srcset|href)="([^"\s#]+)""")
_ELSEWHERE = re.compile(r"[a-z]+:")


def linked(page: Path) -> Iterator[Path]:
    """The files and folders of the checkout that a page links to."""
    for inline, attribute in _LINK.findall(page.read_text(encoding="utf-8")):
        link = inline or attribute
        if not _ELSEWHERE.match(link):
            target = (page.parent / link).resolve()
            if target.is_dir() and (target / "README.md").is_file():
                target /= "README.md"
            if target.exists() and target.is_relative_to(ROOT) and target != ROOT:
                yield target


def inside(folder: Path) -> list[Path]:
    """What a folder's page lists."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))


def sources() -> set[Path]:
    """The pages, and all that can be reached from them."""
    left = [ROOT / name for name in PAGES] + sorted((ROOT / "docs").rglob("*.md"))
    found: set[Path] = set()
    while left:
        page = left.pop()
        if page in found:
            continue
        found.add(page)
        if page.is_dir():
            left += inside(page)
        elif page.suffix in {".md", ".txt"}:
            left += linked(page)
    return found


def listing(folder: Path) -> str:
    """A page in the place of a folder that has none."""
    names = [path.name + "/" * path.is_dir() for path in inside(folder)]
    lines = [f"- [{name}]({name})" for name in names]
    return "\n".join([f"# {folder.relative_to(ROOT)}", "", *lines, ""])


def main() -> None:
    """Exit code 0; 1: a link leads nowhere, or zensical is not installed."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for file in sources():
        copy = SOURCE / file.relative_to(ROOT)
        if file.is_dir():
            copy /= "index.md"
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            copy.write_text(listing(file), encoding="utf-8")
        else:
            shutil.copyfile(file, copy)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=False
    )
    if built.returncode:
        raise SystemExit(1)
    shutil.copyfile(ROOT / "docs" / "llms.txt", SITE / "llms.txt")
    print(f"{SITE} has {len(list(SITE.rglob('*.html')))} pages")


if __name__ == "__main__":
    main()
