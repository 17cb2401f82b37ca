"""Where an update's new replicas find room beside the old ones, and where they don't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deployments.config.capacity import whole
from deployments.deploying.room import Node, Resources, asks_and_free
from deployments.deploying.serve_state import AppState, Stage

_GPU = "GPU"
_SHOWN_NODES = 4


@dataclass(frozen=True, slots=True)
class Wave:
    """The first new replicas of one deployment, all of which Serve starts at once.

    changing: replicas that the update replaces; surge: how many may run beside them, 0 where old
    ones stop first; needs: of one new replica; places: node → how many find room there; nodes: as
    they are once every deployment's new replicas have taken their places; per_node:
    max_replicas_per_node.
    """

    deployment: str
    changing: int
    surge: int
    needs: Resources
    places: Counter[str]
    nodes: tuple[Node, ...]
    per_node: int | None = None

    @property
    def fits(self) -> int:
        return self.places.total()

    def said(self) -> str:
        """The room there is; or who lacks what, what happens then, and the cure."""
        replicas = f"{self.changing} replica{'s' if self.changing != 1 else ''}"
        if not self.surge:
            return (
                f"{self.deployment}: max_surge_percent is 0, so of {replicas} old ones stop before "
                "new ones start; until then there are fewer"
            )
        if not self.fits:
            lacks = asks_and_free(self.deployment, self.needs, self.nodes)
            if self.per_node:
                lacks += f", and max_replicas_per_node, {self.per_node}, counts old replicas too"
            return (
                f"no room for the surge: {lacks}. The old replicas serve on, and the update waits "
                "until a node has room, which an autoscaler may bring. With max_surge_percent: 0 "
                f"under {self.deployment} its old replicas stop first, and callers may get 503"
            )
        at_once = f"{self.fits} at a time"
        if self.fits < self.surge:
            at_once += f", not the {self.surge} that max_surge_percent allows"
        return f"{self.deployment}: {replicas} to replace, {at_once}; room on {self._where()}"

    def _where(self) -> str:
        named = [
            f"{node} ({number})" if number > 1 else node
            for node, number in self.places.most_common(_SHOWN_NODES)
        ]
        more = len(self.places) - len(named)
        return ", ".join(named) + (f" and {more} more" if more else "")


def first_wave(there: AppState, asked: dict[str, Any], nodes: Sequence[Node]) -> list[Wave]:
    """One wave for each deployment that an update to the config `asked` replaces.

    They share the nodes: each deployment gets room for one before any gets room for a second, and
    those that ask for a GPU come first. Ray may place them otherwise, as it places replicas one by
    one; what is counted is whether there is room.

    Serve's own rule is in Ray 2.60's serve/_private/deployment_state.py,
    `_surge_replicas_to_start`.
    """
    by_name = {one.get("name"): one for one in asked.get("deployments") or []}
    replaced = list(_replaced(there, asked))
    waves: dict[str, tuple[int, int, Resources]] = {}
    per_node: dict[str, int | None] = {}
    held: dict[str, Counter[str]] = {}
    for stage in replaced:
        config = whole(by_name.get(stage.name) or {"name": stage.name})
        target = _target(stage, config)
        surge = -(-target * int(config.get("max_surge_percent") or 0) // 100)
        at_once = min(target, surge + max(0, target - stage.running)) if surge else 0
        waves[stage.name] = target, at_once, _needs(stage, config)
        per_node[stage.name] = config.get("max_replicas_per_node")
        held[stage.name] = Counter(stage.on_nodes)
    free = [replace(node, used=dict(node.used)) for node in nodes]
    places: dict[str, Counter[str]] = {name: Counter() for name in waves}
    in_order = sorted(waves, key=lambda name: (-waves[name][2].get(_GPU, 0.0), -_size(waves[name])))
    for turn in range(max((at_once for _, at_once, _ in waves.values()), default=0)):
        for name in in_order:
            _, at_once, needs = waves[name]
            most = per_node[name]
            open_to_it = [n for n in free if most is None or held[name][n.name] < most]
            if turn < at_once and (node := _place(needs, open_to_it)):
                places[name][node.name] += 1
                held[name][node.name] += 1
                for resource, amount in needs.items():
                    node.used[resource] = node.used.get(resource, 0.0) + amount
    return [
        Wave(name, target, at_once, needs, places[name], tuple(free), per_node[name])
        for name, (target, at_once, needs) in waves.items()
    ]


def _replaced(there: AppState, asked: dict[str, Any]) -> Iterator[Stage]:
    """Deployments of which Serve makes all replicas anew: all, or those that ask for other
    resources. Anything else is applied live."""
    deployed = there.config or {}
    all_of_it = any(
        (deployed.get(key) or {}) != (asked.get(key) or {})
        for key in ("import_path", "args", "runtime_env")
    )
    before = {one.get("name"): one for one in deployed.get("deployments") or []}
    after = {one.get("name"): one for one in asked.get("deployments") or []}
    for stage in there.stages:
        old, new = (of.get(stage.name, {}).get("ray_actor_options") for of in (before, after))
        if stage.running and (all_of_it or old != new):
            yield stage


def _target(stage: Stage, config: dict[str, Any]) -> int:
    """How many replicas there will be, as far as the file says it."""
    number = config.get("num_replicas")
    if isinstance(number, int):
        return number
    bounds = config.get("autoscaling_config") or {}
    least, most = int(bounds.get("min_replicas", 1)), bounds.get("max_replicas")
    return max(least, min(stage.wanted, int(most)) if most else stage.wanted)


def _needs(stage: Stage, config: dict[str, Any]) -> Resources:
    """What one new replica asks for; as the old ones where the file does not say."""
    asked = config.get("ray_actor_options")
    if not asked or config.get("placement_group_bundles"):
        return stage.needs
    # Serve's own default is one CPU.
    named = {"CPU": asked.get("num_cpus", 1), _GPU: asked.get("num_gpus"), **_others(asked)}
    return {name: float(amount) for name, amount in named.items() if amount}


def _others(asked: dict[str, Any]) -> dict[str, Any]:
    return {"memory": asked.get("memory"), **(asked.get("resources") or {})}


def _size(wave: tuple[int, int, Resources]) -> float:
    return wave[2].get("CPU", 0.0)


def _place(needs: Resources, nodes: Sequence[Node]) -> Node | None:
    """A node with room: Ray keeps GPU nodes for who asks for a GPU, where it can, and so do we."""
    fitting = [node for node in nodes if node.fits(needs)]
    wants_gpu = _GPU in needs
    return min(
        fitting,
        key=lambda node: (not wants_gpu and node.total.get(_GPU, 0.0) > 0, -node.free("CPU")),
        default=None,
    )
