"""Build the image, try it in containers, and say what is in it.

Needs docker or podman. `--engine-option` hands `build` what a network needs: a mirror, a secret
with pip's configuration, volumes. Where no registry can be reached, `--stand-in` first makes the
base image out of Debian's packages.

Example: `python scripts/build_image.py --variant cpu --torch-index <PyTorch's index of CPU wheels>`
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rayclassify_client import __version__
from scripts.bench.machine import commit, stamp
from scripts.image.engine import Engine, EngineError
from scripts.image.proof import Row, prove, versions
from scripts.image.sbom import licences, sbom
from scripts.image.sizes import Sizes, sizes
from scripts.image.stand_in import make_base
from scripts.rendered import console

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "image.md"
START, END = "<!-- build_image.py: start -->", "<!-- build_image.py: end -->"
BASE = "python:3.11-slim-bookworm"

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def main(
    engine: Annotated[str, typer.Option(help="docker or podman.")] = "docker",
    variant: Annotated[str, typer.Option(help="cpu or cuda: the build of torch.")] = "cuda",
    base: Annotated[str, typer.Option(help="The image to build on.")] = BASE,
    torch_index: Annotated[
        str, typer.Option(help="An index for pip beside its own.", show_default="none")
    ] = "",
    tag: Annotated[
        str, typer.Option(help="Name of the image.", show_default="rayclassify:<version>")
    ] = "",
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Make the base out of Debian's packages first.")
    ] = False,
    engine_option: Annotated[
        list[str] | None, typer.Option(help="More for the engine's `build`; may be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the SBOM and the report.")] = ROOT
    / "build"
    / "image",
    document: Annotated[
        bool, typer.Option("--document", help="Write the report into docs/image.md.")
    ] = False,
) -> None:
    """Build the image, try it, list what is in it.

    Exit code 0; 1: it could not be built, or a promise was not kept.
    """
    image = tag or f"rayclassify:{__version__}"
    chosen = Engine(engine, tuple(engine_option or ()))
    build_args = {"BASE": base, "VARIANT": variant, "PIP_EXTRA_INDEX_URL": torch_index}
    build_args |= {"VERSION": __version__, "REVISION": commit() or ""}
    try:
        if stand_in:
            make_base(chosen, base)
        chosen.build(ROOT, image, build_args)
        rows = []
        for row in prove(chosen, image):
            console.print(
                f"{'kept' if row.kept else '[red]NOT KEPT[/red]'}: {row.promise}: {row.result}"
            )
            rows.append(row)
        bom = sbom(chosen, image, ROOT)
        measured = sizes(chosen, image)
        found = versions(chosen, image)
    except EngineError as error:
        console.print(f"[red]{error}[/red]", soft_wrap=True)
        raise typer.Exit(1) from None
    output.mkdir(parents=True, exist_ok=True)
    (output / "sbom.cdx.json").write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")
    about = f"{base}{', a stand-in for it' if stand_in else ''}; {variant}"
    text = report(about, found, rows, measured, bom)
    (output / "report.md").write_text(text, encoding="utf-8")
    print(text)
    if document:
        PAGE.write_text(with_report(PAGE.read_text("utf-8"), text), encoding="utf-8")
    raise typer.Exit(0 if all(row.kept for row in rows) else 1)


def report(
    about: str, found: dict[str, str], rows: list[Row], measured: Sizes, bom: dict[str, Any]
) -> str:
    """The report in Markdown."""
    ours = sum(measured.packages.values())
    biggest = sorted(measured.packages.items(), key=lambda item: -item[1])[:6]
    kinds = {"pypi": 0, "deb": 0}
    for component in bom["components"]:
        kinds[component["purl"].split("/")[0].removeprefix("pkg:")] += 1
    said = ", ".join(f"{name} {version}" for name, version in found.items())
    machine = stamp()
    lines = [
        f"On {about}; {said}. {machine['cores']} cores of {machine['cpu']}, "
        f"{datetime.now(UTC):%Y-%m-%d}, commit {machine['commit']}.",
        "",
        "| promise | how tried | result | kept |",
        "|---|---|---|---|",
        *(f"| {r.promise} | {r.tried} | {r.result} | {'yes' if r.kept else 'no'} |" for r in rows),
        "",
        "| layer | MB |",
        "|---|---|",
        *(f"| {name} | {megabytes(count)} |" for name, count in named(measured.layers)),
        f"| **all, not compressed** | **{megabytes(measured.image_bytes)}** |",
        "",
        f"Python packages fill {megabytes(ours)} MB as pip counts them: "
        + ", ".join(f"{name} {megabytes(count)}" for name, count in biggest)
        + f", {len(measured.packages) - len(biggest)} others "
        f"{megabytes(ours - sum(count for _, count in biggest))}.",
        "",
        f"SBOM: CycloneDX 1.6, {len(bom['components'])} components: {kinds['pypi']} of Python, "
        f"{kinds['deb']} of Debian. Licences of Python's: "
        + ", ".join(f"{name} {count}" for name, count in list(licences(bom).items())[:8])
        + "; the rest is in the file.",
    ]
    return "\n".join(lines) + "\n"


def named(layers: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The layers by what they hold, as far as their instructions tell; oldest first, as they come.

    Dependencies and our package are copied to one place, the dependencies first.
    """
    environment = iter(("dependencies", "our package"))
    found = []
    for made_by, count in layers:
        words = " ".join(made_by.replace("/bin/sh -c", "").replace("#(nop)", "").split())
        if words.startswith("COPY"):
            name = next(environment, words) if "/opt/rayclassify" in words else "two configs"
        elif "getent" in words:
            name = "wget, user 1000"
        else:
            name = "base" if words.startswith("ADD") or not words else f"`{words[:60]}`"
        found.append((name, count))
    return found


def megabytes(count: int) -> str:
    """1 MB: 1,000,000 bytes."""
    return f"{count / 1e6:,.0f}" if count >= 1e6 else f"{count / 1e6:.1f}"


def with_report(page: str, text: str) -> str:
    """The page with the report between its marks. Raises ValueError where it has none."""
    if START not in page or END not in page:
        raise ValueError(f"{PAGE.name} has no marks `{START}` and `{END}`")
    head, _, rest = page.partition(START)
    return f"{head}{START}\n\n{text}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    app()
