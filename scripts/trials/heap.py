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
    found: list[str] = []
    for tracked in gc.get_objects():
        for held in gc.get_referents(tracked):
            if held is core or held is utf8 or held is packed:
                continue
            if (
                (type(held) is str and core in held)
                or (type(held) in (bytes, bytearray) and utf8 in held)
                or (packed and type(held) is np.ndarray and packed in held.tobytes())
            ):
                found.append(type(tracked).__name__)
    return found
