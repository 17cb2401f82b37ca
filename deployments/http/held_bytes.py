"""How much memory the bodies of all requests may take before they are understood."""

from __future__ import annotations

from deployments.pipeline.errors import Overloaded


class HeldBytes:
    """Bytes of bodies that are not whole or not parsed yet, of one process.

    Thousands of connections that each send most of a body and then pause would else fill its
    memory, long before anything counts their texts.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.now = 0

    def share(self) -> Share:
        """What one request holds of them."""
        return Share(self)

    def _take(self, size: int) -> None:
        if self.now + size > self._limit:
            raise Overloaded(
                f"The bodies under way hold {self.now} bytes, the limit is {self._limit}. "
                "Retry later, or send smaller requests."
            )
        self.now += size


class Share:
    """One request's part; `give_back` it when the body is parsed or given up."""

    __slots__ = ("_of", "_size")

    def __init__(self, of: HeldBytes) -> None:
        self._of = of
        self._size = 0

    def take(self, size: int) -> None:
        """Raises Overloaded: all requests together would hold too much."""
        self._of._take(size)
        self._size += size

    def give_back(self) -> None:
        self._of.now -= self._size
        self._size = 0
