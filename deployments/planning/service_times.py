"""What each part of the service takes: the figures that the rest computes with.

Where each of `MEASURED` comes from stands in docs/scale.md, and a test holds what was measured to
docs/benchmark.json. `python scripts/simulate.py measure` measures all of them anew.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """What callers send. spread: standard deviation of a text's tokens by their mean."""

    tokens_mean: float
    texts_per_request: int = 1
    spread: float = 1.0

    @property
    def request_tokens(self) -> float:
        return self.texts_per_request * self.tokens_mean

    @property
    def request_square(self) -> float:
        """E[Y²] of a request's tokens, its texts independent of each other."""
        return (
            self.request_tokens**2 + self.texts_per_request * (self.spread * self.tokens_mean) ** 2
        )


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """Seconds of CPU time of one core, and of waiting that no core is busy with.

    ingress_request_s, ingress_text_s: of a Tokenizer, whose event loop fills one core. postprocess_
    call_s: of a Postprocessor a request. proxy_request_s: of HAProxy. hops_s: what one request
    takes beyond its pass where nobody else asks, as quantiles at equal steps from 0 to 1.
    """

    ingress_request_s: float
    ingress_text_s: float
    postprocess_call_s: float
    proxy_request_s: float
    hops_s: tuple[float, ...]
    min_gap_s: float = 0.010
    max_microbatch_texts: int = 256

    def ingress_s(self, texts: int) -> float:
        """Of one core, for a request of so many texts."""
        return self.ingress_request_s + texts * self.ingress_text_s


MEASURED = ServiceTimes(
    ingress_request_s=0.00024,
    ingress_text_s=0.00006,
    postprocess_call_s=0.00137,
    proxy_request_s=0.000032,
    hops_s=(0.0049, 0.0054, 0.0059, 0.0065, 0.0072, 0.008, 0.0087, 0.0095, 0.0105, 0.0112, 0.0139),
)

# Upstream's own word on its controller: above, it asks for another architecture (Ray issue 60680,
# 2026-02, measured up to 2,048 replicas that autoscale).
CONTROLLER_MOST_REPLICAS = 2_000
# Of Ray 2.60: RAY_SERVE_HAPROXY_NBTHREAD and _MAXCONN, of each node's proxy; a look at every
# ingress replica each RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER.
PROXY_THREADS, PROXY_MAX_CONNECTIONS, PROXY_CHECK_S = 4, 4_096, 5.0
# Ray's docs promise no more nodes; its release tests run 2,000 (ray, release/benchmarks).
MOST_NODES = 2_000
