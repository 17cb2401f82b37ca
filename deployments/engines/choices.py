"""Choices of engines that are kept: which of them still hold, and one measurer at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deployments.engines.kept import Kept, Store
from deployments.engines.measurement import Measured

logger = logging.getLogger(__name__)


class Choices:
    """What was measured under which circumstances. Where nothing can be kept it says so once."""

    def __init__(self, store: Store | None = None) -> None:
        self._kept = Kept("choices", store)
        if not self._kept.is_possible:
            logger.warning(
                "no directory to cache the choice of an engine in: it is measured at each start. "
                "Set RAYCLASSIFY_CACHE_DIR to one, or args.engine's name and dtype."
            )

    def read(self, key: dict[str, Any] | None) -> list[Measured] | None:
        """The rows that were measured under these circumstances, the chosen one first."""
        for found in self._kept.read(key):
            try:
                rows = [Measured.from_json(row) for row in found["rows"]]
            except (KeyError, TypeError) as exc:
                self._kept.damaged(exc)
            else:
                if rows:
                    return rows
        return None

    def store(self, key: dict[str, Any] | None, rows: list[Measured]) -> None:
        """Replaces what was kept under these circumstances.

        Rows of which none is chosen, or of which one failed, are not kept: a full disk or memory
        that was short may have been chance, and the next start tries again.
        """
        if not rows or not rows[0].chosen:
            return
        if any(row.verdict.startswith("failed") for row in rows):
            logger.warning(
                "an engine failed: the next start measures again. `rayclassify doctor` says which."
            )
            return
        self._kept.write(key, {"rows": [row.to_json() for row in rows]})

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Replicas that start together on one node would disturb each other's measurements."""
        with self._kept.one_at_a_time():
            yield
