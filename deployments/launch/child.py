"""`serve run CONFIG` in a new Ray, at whose metrics port: Serve's own command has no word for it.

Run as `python -m deployments.launch.child METRICS_PORT CONFIG`.
"""

from __future__ import annotations

import sys


def main(port: int, config: str) -> None:
    """Serves until it is interrupted, as `serve run` does."""
    import ray
    from ray.serve.scripts import cli

    # Serve's, where one is to look: it takes a Ray that is there.
    ray.init(namespace="serve", _metrics_export_port=port)
    cli(["run", config])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
