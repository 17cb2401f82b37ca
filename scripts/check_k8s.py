"""Check rendered Kubernetes manifests: schemas, KubeRay's rules, names that must meet, policies.

No cluster and no network is asked. Without arguments: every overlay of k8s/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from scripts.kubernetes.check import problems
from scripts.kubernetes.overlays import K8S, KustomizeError, NoKustomize, documents, rendered
from scripts.rendered import console

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def main(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with a kustomization.yaml, or files with manifests."),
    ] = None,
) -> None:
    """Say everything that is wrong with the manifests, before a cluster does.

    Exit code 1 where something is wrong or could not be looked at.
    """
    places = paths or sorted(
        path.parent for path in (K8S / "overlays").glob("*/kustomization.yaml")
    )
    wrong = False
    for place in places:
        try:
            made = rendered(place) if place.is_dir() else documents(place.read_text("utf-8"))
        except (NoKustomize, KustomizeError, OSError, yaml.YAMLError) as error:
            said = " ".join(f"{place}: {error}".split())
            console.print(said, style="red", soft_wrap=True, markup=False)
            raise typer.Exit(1) from None
        found, unchecked = problems(made)
        for one in found:
            console.print(f"[red]{place}: {one}[/red]", soft_wrap=True, highlight=False)
        for one in unchecked:
            console.print(f"[yellow]{place}: not checked: {one}[/yellow]", soft_wrap=True)
        if not found:
            console.print(f"{place}: {len(made)} objects, nothing wrong", highlight=False)
        wrong = wrong or bool(found or unchecked)
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
