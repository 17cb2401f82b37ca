"""What a Python process still holds of a text."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np


def holders(core: str, ids: Sequence[int] = ()) -> list[str]:
    """Types of the objects that refer to a string, bytes or token ids with `core` in them.

    Only what Python can still reach: freed memory keeps its bytes until they are overwritten, and
    no program can look there from inside.
    """
    utf8, packed = core.encode(), np.asarray(ids, np.int32).tobytes()
    needles = [needle for needle in (utf8, packed) if needle]

    def holds(held: object) -> bool:
        if held is core or held is utf8 or held is packed:
            return False
        if type(held) is str:
            return core in held
        if type(held) is np.ndarray:
            return bool(packed) and packed in held.tobytes()
        return type(held) in (bytes, bytearray) and any(needle in held for needle in needles)

    return [
        type(tracked).__name__
        for tracked in gc.get_objects()
        for held in gc.get_referents(tracked)
        if holds(held)
    ]
