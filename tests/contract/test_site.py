"""The documents as a site: every page, no link that leads nowhere, and llms.txt at its root."""

from __future__ import annotations

import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

from scripts.build_site import ROOT, SITE

LLMS = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")


def dead_links() -> list[str]:
    """Relative links of all pages, also to folders and files, of which zensical says nothing."""
    found = []
    for page in SITE.rglob("*.html"):
        for link in re.findall(r'(?:href|src|srcset)="([^"]*)"', page.read_text(encoding="utf-8")):
            url = urlsplit(link)
            if url.scheme or url.netloc or not url.path or page.name == "404.html":
                continue
            place = (page.parent / unquote(url.path)).resolve()
            if not (place / "index.html" if place.is_dir() else place).is_file():
                found.append(f"{page.relative_to(SITE)}: {link}")
    return found


def test_it_builds_without_a_warning() -> None:
    built = subprocess.run(
        [sys.executable, "scripts/build_site.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        place = page.relative_to(ROOT).with_suffix("")
        folder = place.parent if page.stem in {"index", "README"} else place
        assert (SITE / folder / "index.html").is_file(), page
    assert (SITE / "llms.txt").read_text(encoding="utf-8") == LLMS
    assert dead_links() == []


def test_language_models_are_told_of_every_page() -> None:
    linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", LLMS)}
    assert all(path.exists() for path in linked)
    pages = set((ROOT / "docs").glob("*.md"))
    assert pages <= linked


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    for page in (*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "zh").glob("*.md")):
        assert str(page.relative_to(ROOT)) in menu, page


def test_a_file_that_is_linked_comes_along() -> None:
    from scripts.build_site import sources

    there = {str(path.relative_to(ROOT)) for path in sources()}
    assert {"README.md", "deployments/tokenizer.py", "docs/images/autoscaling-dark.svg"} <= there
