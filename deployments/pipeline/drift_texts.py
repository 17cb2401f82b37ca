"""What of texts a drift baseline counts: lengths, and tokens that the vocabulary lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deployments.pipeline.drift import Baseline, unknown_shares
from deployments.pipeline.types import Encoded, TextInput


def features_of(
    baseline: Baseline, read: Encoded, places: Sequence[int], inputs: Sequence[TextInput]
) -> dict[str, npt.NDArray[Any]]:
    """A number for each text, by feature. places: of these inputs in `read`."""
    at = np.asarray(places, np.intp)
    lengths = read.lengths[at]
    found: dict[str, npt.NDArray[Any]] = {"tokens": lengths}
    if baseline.unknown_id is not None:
        shares = unknown_shares(read.input_ids, read.lengths, baseline.unknown_id)
        found["unknown_tokens"] = shares[at]
    else:
        chars = [max(1, len(one.text) + len(one.text_pair or "")) for one in inputs]
        found["tokens_per_character"] = lengths / np.asarray(chars)
    return found
