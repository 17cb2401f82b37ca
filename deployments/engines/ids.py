"""Which token ids a model has rows for: what lies outside is found before a pass, on any device.

Beyond its embedding a GPU ends the process, torch raises, and other runtimes read past the table.
Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deployments.pipeline.errors import PredictionFailed, ServiceError
from deployments.pipeline.types import Encoded, Float32, Logits

# Where a class counts its ids itself (CANINE reads code points): as many as BERT's first file had.
_ANY_VOCABULARY = 30_000


@dataclass(frozen=True, slots=True)
class Ids:
    """What a pass may hold.

    n_ids: rows of the embedding; None where any id goes. n_types: token types that the model tells
    apart; below 2 types say nothing and are left out; None where any goes. max_tokens: of one text.
    marks: ids that are no words (padding, beginning, end, …). end: the mark that must end each
    text, where the class looks for it.
    """

    n_ids: int | None
    n_types: int | None
    max_tokens: int
    marks: tuple[int, ...] = ()
    end: int | None = None

    def guarded(self, run: Callable[[Encoded], Float32], batch: Encoded, n_labels: int) -> Logits:
        """`run` on the texts that the model can read, an error for each of the others."""
        if batch.token_type_ids is not None and self.n_types is not None and self.n_types < 2:
            batch = Encoded(batch.input_ids, batch.lengths)
        errors = self._errors(batch)
        if not errors:
            return Logits(run(batch))
        values = np.zeros((len(batch), n_labels), np.float32)
        texts = batch.split()
        if good := [i for i in range(len(batch)) if i not in errors]:
            values[good] = run(Encoded.concat([texts[i] for i in good]))
        return Logits(values, errors)

    def text(self, length: int, seed: int = 0) -> Encoded:
        """A text of random words, the same each time."""
        return self.texts([length], seed)

    def texts(self, lengths: list[int], seed: int = 0) -> Encoded:
        """As `text`; with random types too, where the model tells some apart."""
        rng = np.random.default_rng(seed)
        n_ids = self.n_ids or _ANY_VOCABULARY
        words = np.setdiff1d(np.arange(n_ids, dtype=np.int32), np.asarray(self.marks, np.int32))
        ids = rng.choice(words if len(words) else np.arange(n_ids), sum(lengths)).astype(np.int32)
        if self.end is not None:
            ids[np.cumsum(lengths) - 1] = self.end
        types = None
        if self.n_types is not None and self.n_types > 1:
            types = rng.integers(0, self.n_types, len(ids)).astype(np.int32)
        return Encoded(ids, np.asarray(lengths, np.int32), types)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> Ids:
        return Ids(**{**kept, "marks": tuple(kept["marks"])})

    def _errors(self, batch: Encoded) -> dict[int, ServiceError]:
        errors: dict[int, ServiceError] = {}
        too_long = batch.lengths > self.max_tokens
        if too_long.any():
            for i in np.flatnonzero(too_long).tolist():
                errors[i] = PredictionFailed(
                    f"This text has {batch.lengths[i]} tokens; the model reads {self.max_tokens}."
                )
        for values, n_rows, what in (
            (batch.input_ids, self.n_ids, "tokens"),
            (batch.token_type_ids, self.n_types, "token types"),
        ):
            if values is None or not len(values) or n_rows is None:
                continue
            if values.min() >= 0 and values.max() < n_rows:
                continue
            outside = np.flatnonzero((values < 0) | (values >= n_rows))
            for i in np.searchsorted(np.cumsum(batch.lengths), outside, side="right").tolist():
                errors[i] = PredictionFailed(
                    f"This text has {what} that the model has no row for ({n_rows} rows): its "
                    "tokenizer and its weights don't fit together. Tell who runs this service."
                )
        return errors


def marks_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids that a config.json calls by a name of their own: `pad_token_id` and its like."""
    found: set[int] = set()
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(marks_of(value))
        elif str(key).endswith("_token_id"):
            named = value if isinstance(value, list | tuple) else [value]
            found.update(i for i in named if isinstance(i, int) and not isinstance(i, bool))
    return tuple(sorted(i for i in found if i >= 0))
