"""The rules file, and the manifest for Prometheus' operator made of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "k8s" / "monitoring"
RULES = FOLDER / "rules.yaml"
_HEAD = (
    "# Rendered by scripts/render_monitoring.py from rules.yaml: edit that.\n"
    "# For Prometheus' operator, which takes it where its ruleSelector matches the labels.\n"
)


def groups() -> list[dict[str, Any]]:
    """The groups of rules.yaml."""
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return found


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Name → rule. kind: alert or record."""
    return {rule[kind]: rule for group in groups() for rule in group["rules"] if kind in rule}


def hurried(window: str = "30s", holds: str = "5s") -> str:
    """The same rules for a trial that has minutes: each rate over `window`, each alert's condition
    held for `holds`."""
    text = re.sub(r"\[\d+[mh]\]", f"[{window}]", RULES.read_text(encoding="utf-8"))
    return re.sub(r"for: \S+", f"for: {holds}", text)


def manifest() -> str:
    """A PrometheusRule with all of them."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "rayclassify", "labels": {"app.kubernetes.io/name": "rayclassify"}},
        "spec": {"groups": groups()},
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
