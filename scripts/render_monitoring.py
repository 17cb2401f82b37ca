"""Render k8s/monitoring: Grafana's dashboard, and the rules as Prometheus' operator takes them."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts.monitoring.grafana import dashboard
from scripts.monitoring.rules import FOLDER, manifest
from scripts.rendered import write_or_check

RENDERED = {"dashboard.json": dashboard, "prometheusrule.yaml": manifest}
"""File → what makes its text."""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff if stale.")
    ] = False,
) -> None:
    """Render the dashboard from scripts/monitoring/panels.py, the manifest from rules.yaml."""
    for name, text in RENDERED.items():
        write_or_check(text(), FOLDER / name, "scripts/render_monitoring.py", check=check)


if __name__ == "__main__":
    app()
