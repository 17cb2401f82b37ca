"""Token ids that callers made themselves, among texts that are still to be encoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployments.pipeline.errors import InvalidInput, ServiceError
from deployments.pipeline.tasks import Encoder
from deployments.pipeline.tokenize import EncodedTexts, too_many_tokens
from deployments.pipeline.types import Encoded, TextInput


def encoded(encoder: Encoder, inputs: Sequence[TextInput], redacted: bool) -> EncodedTexts:
    """As `Encoder.encode`, of inputs some of which have `token_ids`.

    redacted: personal data must not reach the model, and nobody can find it in ids.
    """
    texts = [i for i, item in enumerate(inputs) if item.token_ids is None]
    errors: dict[int, ServiceError] = {}
    made: dict[int, tuple[Encoded, bool]] = {}
    if texts:
        some = encoder.encode([inputs[i] for i in texts])
        errors = {texts[k]: error for k, error in some.errors.items()}
        rows = zip(some.index, some.batch.split(), some.truncated, strict=True)
        made = {texts[k]: (one, cut) for k, one, cut in rows}
    n_ids = encoder.untruncated.get_vocab_size()
    for i, item in enumerate(inputs):
        if item.token_ids is None:
            continue
        if error := _refused(item, item.token_ids, encoder.max_length, n_ids, redacted):
            errors[i] = error
            continue
        ids, most = item.token_ids, encoder.max_length
        kept = ids[-most:] if item.options.truncation_side == "left" else ids[:most]
        one = Encoded(np.asarray(kept, np.int32), np.asarray([len(kept)], np.int32))
        made[i] = (one, len(ids) > most)
    index = sorted(made)
    empty = Encoded(np.zeros(0, np.int32), np.zeros(0, np.int32))
    return EncodedTexts(
        batch=Encoded.concat([made[i][0] for i in index]) if index else empty,
        index=index,
        truncated=[made[i][1] for i in index],
        errors=errors,
    )


def _refused(
    item: TextInput, ids: Sequence[int], max_length: int, n_ids: int, redacted: bool
) -> ServiceError | None:
    if redacted:
        return InvalidInput("This service takes personal data out of texts. Send the text, no ids.")
    if not 0 <= min(ids) <= max(ids) < n_ids:
        return InvalidInput(f"A token id is not in 0 to {n_ids - 1}, the model's vocabulary.")
    if len(ids) > max_length and not item.options.truncation:
        return too_many_tokens(len(ids), max_length)
    return None
