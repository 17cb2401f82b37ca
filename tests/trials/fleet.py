"""A cluster of a head, CPU nodes and GPU nodes, whose replicas are known by their node's pool.

The nodes are `ray.cluster_utils`' own: each has a raylet, and all share this machine. GPUs are
numbers to Ray. `python -m tests.trials.fleet` holds one, and does what its input asks.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.bench.child import answer_lines
from scripts.bench.cluster import START_TIMEOUT_S, LocalCluster, shipped_flags
from scripts.bench.process import wait_until

_POOL = "pool"
_STORE_BYTES = 80_000_000


class Fleet(LocalCluster):
    """Nodes in pools. A node offers its pool's name as a resource too, for who must run there."""

    def add(self, pool: str, nodes: int, num_cpus: int, num_gpus: int = 0) -> dict[str, Any]:
        """Adds nodes to a pool."""
        for _ in range(nodes):
            node = self._cluster.add_node(
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                resources={pool: 1000},
                labels={_POOL: pool},
                object_store_memory=_STORE_BYTES,
            )
            self._workers.append(node)
        return {"nodes": len(self._workers) + 1}

    def where(self) -> dict[str, Any]:
        """Of replicas that run: `pools`, deployment → pool → how many; `nodes`, deployment → how
        many on each of its nodes, most first; `unplaced`, deployment → those without a node."""
        import ray

        pools = {node["NodeID"]: node["Labels"].get(_POOL, "head") for node in ray.nodes()}
        seen: dict[str, Any] = {"pools": {}, "nodes": {}, "unplaced": {}}
        app = self.client.get_serve_details()["applications"].get("classify", {"deployments": {}})
        for name, one in app["deployments"].items():
            there = [r["node_id"] for r in one["replicas"] if r["state"] == "RUNNING"]
            seen["pools"][name] = dict(Counter(pools[node] for node in there))
            seen["nodes"][name] = sorted(Counter(there).values(), reverse=True)
            seen["unplaced"][name] = sum(not r.get("node_id") for r in one["replicas"])
        return seen

    def lose(self, pool: str, deployment: str) -> dict[str, Any]:
        """Kills a node of that pool with a replica of that deployment on it, and adds no other.

        gone: processes of the replicas that were on it.
        """
        import ray

        running = wait_until(self._replicas, "the application", START_TIMEOUT_S)
        pools = {node["NodeID"]: node["Labels"].get(_POOL) for node in ray.nodes()}
        holding = {r["node_id"] for r in running[deployment] if r["state"] == "RUNNING"}
        lost = next(w for w in self._workers if w.node_id in holding and pools[w.node_id] == pool)
        self._workers.remove(lost)
        self._cluster.remove_node(lost, allow_graceful=False)
        gone = [
            r["pid"]
            for of in running.values()
            for r in of
            if r.get("node_id") == lost.node_id and r.get("pid")
        ]
        return {"gone": gone}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="haproxy", dir="/tmp") as folder:
        fleet = Fleet(Path(folder), shipped_flags(), head_cpus=0)
        try:
            answer_lines(fleet.answer)
        finally:
            fleet.stop()
