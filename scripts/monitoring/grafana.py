"""The same as Grafana's JSON."""

from __future__ import annotations

import json
from typing import Any

from .panels import DASHBOARD, Panel

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 7
# Of Grafana 11; newer ones read it.
_SCHEMA = 39


def dashboard() -> str:
    """The file that Grafana imports."""
    panels: list[dict[str, Any]] = []
    y = 0
    for section, members in DASHBOARD.items():
        place = {"x": 0, "y": y, "w": _COLUMNS * _WIDTH, "h": 1}
        panels.append(
            {"type": "row", "title": section, "id": len(panels) + 1, "gridPos": place, "panels": []}
        )
        y += 1
        for i, panel in enumerate(members):
            place = {"x": i % _COLUMNS * _WIDTH, "y": y, "w": _WIDTH, "h": _HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        y += _HEIGHT
    described: dict[str, Any] = {
        "title": "rayclassify",
        "uid": "rayclassify",
        "tags": ["rayclassify", "ray-serve"],
        "schemaVersion": _SCHEMA,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), _application()]},
        "panels": panels,
    }
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def _panel(panel: Panel) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    if panel.stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": custom},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": query, "legendFormat": name}
            for i, (query, name) in enumerate(panel.queries.items())
        ],
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
    }


def _application() -> dict[str, Any]:
    query = "label_values(ray_rayclassify_busy_ratio, application)"
    return {
        "name": "application",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": "applications"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
