"""Render k8s/overlays/*/rayservice.yaml from serve_config.gpu.yaml and serve_config.yaml.

The shape of the pods stands in k8s/rayservice.template.yaml and k8s/workergroup.template.yaml; what
follows from the Serve config is filled in: workers that the replicas need, environment, timeouts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from deployments.config.check import ConfigError, load_config
from scripts.kubernetes.kuberay import MAX_NAME
from scripts.kubernetes.rayservice import KEYS_FILE, RenderError, render, version
from scripts.kubernetes.targets import TARGETS
from scripts.rendered import console, write_or_check

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def main(
    target: Annotated[
        str,
        typer.Option(help=f"What to render: {', '.join(TARGETS)}.", show_default="each of them"),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            help="The Serve config to put on Kubernetes; needs --target.",
            show_default="the target's",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where the RayService goes; needs --target.",
            show_default="k8s/overlays/TARGET/rayservice.yaml",
        ),
    ] = None,
    image: Annotated[
        str,
        typer.Option(
            help="What the Dockerfile builds, with the registry that the cluster pulls from.",
            show_default="rayclassify:<version>",
        ),
    ] = "",
    name: Annotated[
        str, typer.Option(help=f"Name of the RayService, up to {MAX_NAME} characters.")
    ] = "rayclassify",
    namespace: Annotated[
        str,
        typer.Option(help="Namespace of the RayService.", show_default="what kubectl is set to"),
    ] = "",
    keys_secret: Annotated[
        str,
        typer.Option(
            help=f"Secret that holds {KEYS_FILE}, made by `rayclassify keys`; then callers need a "
            "key.",
            show_default="none: open to all",
        ),
    ] = "",
    model_dir: Annotated[
        str,
        typer.Option(
            help="Directory in the pods with the model: /models/current, with one of "
            "k8s/components/model-image and model-volume.",
            show_default="args.model.id of the config",
        ),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff if stale.")
    ] = False,
) -> None:
    """Render KubeRay's RayServices from Serve configs.

    How many workers may run follows from `min_replicas`, `max_replicas` and `max_surge_percent` in
    the config, so there is no option for it: change the replicas there, and render again.

    Deploy one with `kubectl apply --server-side -k k8s/overlays/gpu`; requests go to
    `<name>-serve-svc:8000`.
    """
    if target not in {"", *TARGETS}:
        raise typer.BadParameter(f"no target {target!r}; there are {', '.join(TARGETS)}.")
    if not target and (config or output):
        raise typer.BadParameter("--config and --output are of one target: add --target gpu.")
    stale = False
    for one in [TARGETS[target]] if target else TARGETS.values():
        place = output or one.output
        try:
            text = render(
                load_config(config) if config else one.config(),
                image or f"rayclassify:{version()}",
                name,
                namespace,
                keys_secret,
                target=one,
                model_dir=model_dir,
            )
        except (ConfigError, RenderError) as error:
            console.print(f"[red]{error}[/red]", soft_wrap=True)
            raise typer.Exit(1) from None
        then = f"; next: kubectl apply --server-side -k {os.path.relpath(place.parent)}"
        try:
            write_or_check(text, place, "scripts/render_k8s.py", check=check, then=then)
        except typer.Exit:
            stale = True
    if stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
