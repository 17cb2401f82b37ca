"""What a Python process still holds of a text."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Sequence
from types import CoroutineType, FrameType
from typing import Any

import numpy as np

MAX_STEPS = 200


def holders(core: str, ids: Sequence[int] = ()) -> list[str]:
    """What refers to a string, bytes or token ids with `core` in them: its type, and whose it is.

    Only what Python can still reach: freed memory keeps its bytes until they are overwritten, and
    no program can look there from inside.
    """
    utf8, packed = core.encode(), np.asarray(ids, np.int32).tobytes()
    needles = [needle for needle in (utf8, packed) if needle]

    def holds(held: Any) -> bool:
        if held is core or held is utf8 or held is packed:
            return False
        if type(held) is str:
            return core in held
        if type(held) is np.ndarray:
            return bool(packed) and packed in held.tobytes()
        return type(held) in (bytes, bytearray) and any(needle in held for needle in needles)

    everything = gc.get_objects()
    found = [one for one in everything if any(map(holds, gc.get_referents(one)))]
    own = {id(everything), id(found), id(inspect.currentframe())}
    return [f"{type(one).__name__} of {_owner(one, own)}" for one in found]


def _owner(held: object, own: set[int]) -> str:
    """The function in whose frame it is, by however many steps; `nobody` if in none."""
    own = {*own, id(inspect.currentframe())}
    queue, seen = [held], {id(held)}
    own |= {id(queue)}
    for one in queue:
        if isinstance(one, FrameType):
            return one.f_code.co_qualname
        if isinstance(one, CoroutineType):
            return one.__qualname__
        if len(queue) > MAX_STEPS:
            break
        referrers = gc.get_referrers(one)
        own.add(id(referrers))
        new = [
            r for r in referrers if id(r) not in own | seen and type(r).__name__ != "list_iterator"
        ]
        own.add(id(new))
        seen |= set(map(id, new))
        queue += new
    return "nobody"
