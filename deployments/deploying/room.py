"""What the nodes of a cluster have free, and why a replica finds no place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# As Ray's dashboard writes them: "1.0/2.0 CPU", "0B/21.52GiB memory".
_LINE = re.compile(r"([\d.]+)([KMGT]i)?B?/([\d.]+)([KMGT]i)?B? (\S+)")
_UNITS = {None: 1, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SHOWN_NODES = 4
_EPSILON = 1e-6  # Ray counts in ten-thousandths
# What Ray adds by itself, and a config never asks for.
_OWN = re.compile(r"node:|object_store_memory$|accelerator_type:")

Resources = dict[str, float]


@dataclass(frozen=True, slots=True)
class Node:
    """One living node: its name, and of each resource what is in use and what there is."""

    name: str
    used: Resources
    total: Resources

    def free(self, resource: str) -> float:
        return self.total.get(resource, 0.0) - self.used.get(resource, 0.0)

    def fits(self, needed: Resources) -> bool:
        return all(self.free(name) + _EPSILON >= amount for name, amount in needed.items())


def read_nodes(told: dict[str, Any]) -> list[Node]:
    """The living nodes of `data` of /nodes?view=summary."""
    resources = told.get("nodeLogicalResources") or {}
    nodes = []
    for entry in told.get("summary") or []:
        raylet = entry.get("raylet") or {}
        if raylet.get("state") != "ALIVE":
            continue
        told_of = resources.get(raylet.get("nodeId"))
        # Of a node that came lately the dashboard does not know yet what is in use.
        used: Resources = {}
        total: Resources = {} if told_of else dict(raylet.get("resourcesTotal") or {})
        for found in _LINE.finditer(told_of or ""):
            name = found[5]
            used[name] = float(found[1]) * _UNITS[found[2]]
            total[name] = float(found[3]) * _UNITS[found[4]]
        nodes.append(Node(str(entry.get("ip") or raylet.get("nodeName")), used, total))
    return nodes


def has_room(needed: Resources, nodes: Sequence[Node]) -> bool:
    """Whether one replica fits on some node as it is now."""
    return any(node.fits(needed) for node in nodes)


def in_use(nodes: Sequence[Node]) -> Resources:
    """Of all nodes together."""
    total: Resources = {}
    for node in nodes:
        for name, amount in node.used.items():
            total[name] = total.get(name, 0.0) + amount
    return total


def why_no_room(deployment: str, needed: Resources, nodes: Sequence[Node]) -> str:
    """That there is none, who asks for what, and what is free where."""
    return f"no room: {asks_and_free(deployment, needed, nodes)}"


def asks_and_free(deployment: str, needed: Resources, nodes: Sequence[Node]) -> str:
    """Who asks for what, and what is free where; the nodes that lack least come first."""
    asked = {name: amount for name, amount in needed.items() if not _OWN.match(name)}
    wants = " and ".join(_amount(name, amount) for name, amount in asked.items())

    def lacking(node: Node) -> tuple[int, float]:
        lacks = [amount - node.free(n) for n, amount in asked.items() if node.free(n) < amount]
        return len(lacks), sum(lacks)

    ordered = sorted(nodes, key=lacking)
    places = [
        f"{node.name} has {', '.join(_free(node, name) for name in asked)} free"
        for node in ordered[:_SHOWN_NODES]
    ]
    if len(ordered) > _SHOWN_NODES:
        places.append(f"{len(ordered) - _SHOWN_NODES} more nodes have no more")
    return f"{deployment} asks for {wants}; {'; '.join(places) or 'there is no node'}"


def _amount(resource: str, amount: float) -> str:
    if resource == "memory":
        return f"{amount / 1e9:.3g} GB of memory"
    return f"{amount:.4g} {resource}"


def _free(node: Node, resource: str) -> str:
    free, total = max(0.0, node.free(resource)), node.total.get(resource, 0.0)
    if resource == "memory":
        return f"{free / 1e9:.3g} of {total / 1e9:.3g} GB of memory"
    return f"{free:.4g} of {total:.4g} {resource}"
