"""Build what a release publishes, and check it: both packages' wheels and sdists, and the notes.

Exit code 1 says what is wrong with the files, or that the tag isn't `v<version>`. The version
stands in client/rayclassify_client/__init__.py, and nowhere else.

Example: `python scripts/build_release.py --tag v0.1.0`
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Annotated

import typer
from packaging.metadata import Metadata
from trove_classifiers import classifiers

from rayclassify_client import __version__
from scripts.rendered import console

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = {"rayclassify": ROOT, "rayclassify-client": ROOT / "client"}
# The demo model is 5.6 MB of it, Swagger UI's script 1.7. More has come in by mistake.
MOST_BYTES = {"rayclassify": 10_000_000, "rayclassify-client": 60_000}
# What may lie at the top of each wheel beside its .dist-info.
TOP = {
    "rayclassify": {"deployments", "rayclassify_client"},
    "rayclassify-client": {"rayclassify_client"},
}
# hatchling adds .gitignore to an sdist: what built from it must leave out the same.
NEVER = re.compile(r"(^|/)(__pycache__|tests|\.(?!gitignore$)[^/]+)(/|$)|\.pyc$")

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def main(
    tag: Annotated[str, typer.Option(help="The tag that is released; empty: none.")] = "",
    output: Annotated[Path, typer.Option(help="Folder for the files, emptied first.")] = ROOT
    / "dist",
) -> None:
    """Build both packages into OUTPUT/<name>, check them, write OUTPUT/notes.md."""
    problems = []
    if tag and tag != f"v{__version__}":
        problems.append(f"the tag is {tag}, the version {__version__}. Tag v{__version__}.")
    changes = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), __version__)
    if tag and not changes:
        problems.append(f"CHANGELOG.md has no part `## [{__version__}]`. Name Unreleased so.")
    shutil.rmtree(output, ignore_errors=True)
    for name in PROJECTS:
        for file in build(name, output / name):
            found = check(name, file)
            problems += found
            if not found:
                console.print(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB, checked")
    (output / "notes.md").write_text(changes, encoding="utf-8")
    for problem in problems:
        console.print(f"[red]{problem}[/red]", soft_wrap=True)
    raise typer.Exit(1 if problems else 0)


def build(name: str, output: Path) -> list[Path]:
    """Wheel and sdist; one checkout always gives the same bytes."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", output.resolve()],
        cwd=PROJECTS[name],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return sorted(output.iterdir())


def check(name: str, file: Path) -> list[str]:
    """What is wrong with a wheel or an sdist: metadata, licence, contents, size."""
    members = contents(file)
    inside = sorted(members)
    problems = [f"holds {path}" for path in inside if NEVER.search(path)]
    if file.stat().st_size > MOST_BYTES[name]:
        problems.append(f"has {file.stat().st_size} bytes; {MOST_BYTES[name]} are the limit")
    if file.suffix == ".whl":
        top = {path.split("/")[0] for path in inside if ".dist-info/" not in path}
        problems += [f"holds {path} at its top" for path in sorted(top - TOP[name])]
    described = [p for p in inside if re.search(r"(^|\.dist-info/)(METADATA|PKG-INFO)$", p)]
    if not any(path.endswith("LICENSE") for path in inside):
        problems.append("holds no LICENSE")
    problems += metadata_problems(name, members[described[0]]) if described else ["has no metadata"]
    return [f"{file.name} {problem}" for problem in problems]


def metadata_problems(name: str, raw: bytes) -> list[str]:
    """By the rules of the core metadata's specification, and ours: version, licence, README."""
    try:
        metadata = Metadata.from_email(raw, validate=True)
    except ExceptionGroup as group:
        return [str(error) for error in group.exceptions]
    fields = Parser().parsestr(raw.decode())
    wanted = {
        "Name": name,
        "Version": __version__,
        "License-Expression": "Apache-2.0",
        "Requires-Python": ">=3.11",
        "Description-Content-Type": "text/markdown",
    }
    problems = [
        f"says {field}: {fields[field]}; it should be {value}"
        for field, value in wanted.items()
        if fields[field] != value
    ]
    unknown = set(metadata.classifiers or []) - classifiers
    problems += [f"has the classifier {one!r}, which no index knows" for one in sorted(unknown)]
    return problems if metadata.description else [*problems, "has no README in it"]


def contents(file: Path) -> dict[str, bytes]:
    """Every file inside by its path; of an sdist without its first folder."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            return {path: archive.read(path) for path in archive.namelist()}
    with tarfile.open(file) as archive:
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile()
        }


def notes(changelog: str, version: str) -> str:
    """The part of the changelog under `## [version]`; empty where there is none."""
    found = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)",
        changelog,
        re.DOTALL | re.MULTILINE,
    )
    return found[1].strip() + "\n" if found else ""


if __name__ == "__main__":
    app()
