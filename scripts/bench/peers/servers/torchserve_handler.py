"""TorchServe handler: a whole batch of requests through the model at once.

After pytorch.org/serve/batch_inference_with_ts.html: `handle` gets one entry per request and
returns one answer per request, in order.
"""

from __future__ import annotations

import json
from typing import Any

from bert import Bert

bert: Bert | None = None


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]] | None:
    global bert
    if bert is None:
        bert = Bert()
    if data is None:  # TorchServe's first call, to load
        return None
    texts = []
    for row in data:
        body = row.get("body") or row.get("data")
        texts.append((body if isinstance(body, dict) else json.loads(body))["text"])
    return bert.classify(texts)
