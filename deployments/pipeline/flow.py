"""Whose text it is and how urgent: what a fair order of waiting texts goes by."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count, groupby
from typing import Literal, NamedTuple

Priority = Literal["interactive", "bulk"]

WEIGHTS: dict[Priority, float] = {"interactive": 9.0, "bulk": 1.0}
"""Shares of the model where both wait: bulk never stands in the way, and never stands still."""

BULK_FROM_TEXTS = 33
"""Requests with as many texts are bulk unless they say otherwise."""


class Flow(NamedTuple):
    """Texts that take turns with those of other flows, and among themselves stay in order.

    client: who asks, "" where nobody can tell. request: a number of its own for each bulk request,
    so that a short list need not wait for a long one; 0 for all interactive requests of a client.
    """

    priority: Priority = "interactive"
    client: str = ""
    request: int = 0


DEFAULT_FLOW = Flow()

FlowRuns = list[tuple[Flow, int]]
"""Flows of n texts in order, each with how many texts in a row are its."""

# Bulk requests of several ingress replicas meet in one classifier.
_request_numbers = count(random.getrandbits(60))


def flow_of(priority: Priority | None, client: str, n_texts: int) -> Flow:
    """The flow of one request."""
    if priority is None:
        priority = "interactive" if n_texts < BULK_FROM_TEXTS else "bulk"
    if priority == "bulk":
        return Flow("bulk", client, next(_request_numbers))
    return Flow("interactive", client) if client else DEFAULT_FLOW


def runs_of(flows: Sequence[Flow]) -> FlowRuns | None:
    """None where all are the default one, which is the usual case and costs nothing to send."""
    if all(flow is DEFAULT_FLOW for flow in flows):
        return None
    return [(flow, len(list(run))) for flow, run in groupby(flows)]


def only(places: Sequence[int], flows: FlowRuns | None) -> FlowRuns | None:
    """The flows of the texts at these places."""
    if flows is None:
        return None
    by_text = [flow for flow, n in flows for _ in range(n)]
    return runs_of([by_text[i] for i in places])
