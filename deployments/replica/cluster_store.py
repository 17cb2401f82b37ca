"""What an application's replicas have found out, kept with the cluster instead of a node's disk."""

from __future__ import annotations

import logging

from ray.experimental import internal_kv

logger = logging.getLogger(__name__)

NAMESPACE = b"rayclassify"


class ClusterStore:
    """In the key-value store of Ray's head: as long as the cluster lives. See `engines.Store`."""

    def get(self, key: str) -> str | None:
        if not internal_kv._internal_kv_initialized():
            return None  # no cluster
        try:
            kept = internal_kv._internal_kv_get(key.encode(), namespace=NAMESPACE)
        except Exception as exc:  # Ray's own, of many kinds
            logger.warning("the cluster's store can't be read (%s)", type(exc).__name__)
            return None
        return None if kept is None else bytes(kept).decode()

    def put(self, key: str, value: str) -> None:
        if not internal_kv._internal_kv_initialized():
            return
        try:
            internal_kv._internal_kv_put(key.encode(), value.encode(), namespace=NAMESPACE)
        except Exception as exc:
            logger.warning("the cluster's store can't be written (%s)", type(exc).__name__)
