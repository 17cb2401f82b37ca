"""Turns for flows: each gets its share of what is served, however much it has waiting.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996), in levels: first by priority, then by
client, then by request. A flow's tag grows by what was served of it over its weight, and the
smallest tag is next. A flow that has just come starts at the tag that is served, so that it has no
claim on the past and nobody starves it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by path, such as `Flow`; all paths have the same length.

    weights: shares of the first level's keys; 1 for others.
    """

    def __init__(self, weights: Mapping[Any, float] | None = None) -> None:
        self._weights = weights or {}
        self._root: _Level[T] = _Level()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[T]:
        """All items, in no order."""
        return self._root.items()

    def push(self, path: Sequence[Hashable], item: T) -> None:
        self._leaf(path).append(item)
        self._n += 1

    def head(self) -> T:
        """The item whose turn it is; IndexError where none waits."""
        level = self._root
        while True:
            inner = level.heap[0][2].inner
            if isinstance(inner, deque):
                return inner[0]
            level = inner

    def pop(self, cost: float) -> T:
        """Takes the head out, and charges its flow with `cost`."""
        trail = self._trail()
        leaf = trail[-1][1].inner
        assert isinstance(leaf, deque)  # noqa: S101 - trails end there
        item = leaf.popleft()
        self._n -= 1
        for level, member in reversed(trail):
            level.virtual = max(level.virtual, member.start)
            member.start += cost / member.weight
            level.settle_head()
            if not member.inner and level.heap:
                # It is forgotten with its tag: were it to come again and start at the old one, who
                # comes alone each time would be served for ever.
                level.virtual = max(level.virtual, min(member.start, level.heap[0][0]))
        return item

    def replace_head(self, items: Sequence[T]) -> None:
        """Puts `items`, in order, in the place of the head; none: the head is gone, uncharged."""
        trail = self._trail()
        leaf = trail[-1][1].inner
        assert isinstance(leaf, deque)  # noqa: S101 - trails end there
        leaf.popleft()
        leaf.extendleft(reversed(items))
        self._n += len(items) - 1
        if not leaf:
            for level, _ in reversed(trail):
                level.settle_head()

    def put_back(self, path: Sequence[Hashable], item: T, cost: float) -> None:
        """Undoes a `pop`: the item is the first of its flow again, and the charge returned."""
        self._leaf(path, refund=cost).appendleft(item)
        self._n += 1

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drops what is not wanted, without charge."""
        self._n = self._root.keep(wanted)

    def _leaf(self, path: Sequence[Hashable], refund: float | None = None) -> deque[T]:
        level, weight = self._root, self._weights.get(path[0], 1.0)
        for key in path[:-1]:
            inner = level.member(key, weight, _Level, refund).inner
            assert isinstance(inner, _Level)  # noqa: S101 - paths have one length
            level, weight = inner, 1.0
        leaf = level.member(path[-1], weight, deque, refund).inner
        assert isinstance(leaf, deque)  # noqa: S101
        return leaf

    def _trail(self) -> list[tuple[_Level[T], _Member[T]]]:
        trail: list[tuple[_Level[T], _Member[T]]] = []
        inner: _Level[T] | deque[T] = self._root
        while isinstance(inner, _Level):
            member = inner.heap[0][2]
            trail.append((inner, member))
            inner = member.inner
        return trail


class _Member(Generic[T]):
    """One key of a level, with what waits below it: never nothing."""

    __slots__ = ("inner", "key", "start", "weight")

    def __init__(
        self, key: Hashable, start: float, weight: float, inner: _Level[T] | deque[T]
    ) -> None:
        self.key, self.start, self.weight, self.inner = key, start, weight, inner


class _Level(Generic[T]):
    """Members by key, and a heap of them by tag. virtual: the tag that was served last."""

    __slots__ = ("_firsts", "_numbers", "heap", "members", "virtual")

    def __init__(self) -> None:
        self.virtual = 0.0
        self.members: dict[Hashable, _Member[T]] = {}
        self.heap: list[tuple[float, int, _Member[T]]] = []
        # Of equal tags the lowest number is next.
        self._numbers = count()
        self._firsts = count(-1, -1)

    def __len__(self) -> int:
        return len(self.members)

    def member(
        self,
        key: Hashable,
        weight: float,
        make: Callable[[], _Level[T] | deque[T]],
        refund: float | None,
    ) -> _Member[T]:
        """The member of this key, made if need be; with `refund` it is to be served first."""
        found = self.members.get(key)
        if found is None:
            found = self.members[key] = _Member(key, self.virtual, weight, make())
            number = next(self._numbers if refund is None else self._firsts)
            heapq.heappush(self.heap, (found.start, number, found))
        elif refund is not None:
            found.start -= refund / found.weight
            self._rebuild(first=found)
        return found

    def settle_head(self) -> None:
        """To be called when the head's tag has changed, or nothing waits below it any more."""
        member = self.heap[0][2]
        if member.inner:
            heapq.heapreplace(self.heap, (member.start, next(self._numbers), member))
        else:
            heapq.heappop(self.heap)
            del self.members[member.key]

    def items(self) -> Iterator[T]:
        for member in self.members.values():
            yield from member.inner if isinstance(member.inner, deque) else member.inner.items()

    def keep(self, wanted: Callable[[T], bool]) -> int:
        """How many items are left below."""
        n = 0
        for member in self.members.values():
            if isinstance(member.inner, deque):
                member.inner = deque(item for item in member.inner if wanted(item))
                n += len(member.inner)
            else:
                n += member.inner.keep(wanted)
        self.members = {key: member for key, member in self.members.items() if member.inner}
        self._rebuild()
        return n

    def _rebuild(self, first: _Member[T] | None = None) -> None:
        self.heap = [
            (member.start, next(self._firsts) if member is first else number, member)
            for _, number, member in self.heap
            if self.members.get(member.key) is member
        ]
        heapq.heapify(self.heap)
