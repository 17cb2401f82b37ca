"""How much one caller may ask for: texts a second and texts a day."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from deployments.pipeline.errors import QuotaExceeded, RateLimited

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Rates:
    """None: no limit. burst: texts at once after a pause; None: one second's worth."""

    texts_per_s: float | None = None
    burst_texts: int | None = None
    texts_per_day: int | None = None


class Allowance:
    """A token bucket and a daily quota, in texts, of one caller in this process.

    Every replica counts for itself and starts again when it restarts: with n Tokenizer replicas, a
    caller whose requests reach all of them gets up to n times as much.

    A request is let in while one text is left, and its others are charged when they are known. A
    batch may so overdraw, once, and what it took is waited for afterwards.
    """

    __slots__ = ("_balance", "_burst", "_clock", "_day", "_now", "_rates", "_refilled", "_used")

    def __init__(
        self,
        rates: Rates,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rates = rates
        self._clock = clock
        self._now = now
        self._burst = float(rates.burst_texts or max(1.0, rates.texts_per_s or 1.0))
        self._balance = self._burst
        self._refilled = clock()
        self._day, self._used = 0, 0

    @property
    def rates(self) -> Rates:
        return self._rates

    def take(self) -> None:
        """Lets a request in and charges one text.

        Raises:
            RateLimited, QuotaExceeded: with the seconds until it may try again.
        """
        self._check(least=1.0, used_up=0)
        self._balance -= 1
        self._used += 1

    def charge(self, texts: int) -> None:
        """Charges the other texts of a request that was let in.

        Raises:
            RateLimited, QuotaExceeded: other requests have overdrawn meanwhile.
        """
        self._check(least=0.0, used_up=1)
        self._balance -= texts
        self._used += texts

    def _check(self, least: float, used_up: int) -> None:
        rates = self._rates
        if rates.texts_per_s is not None:
            now = self._clock()
            refill = (now - self._refilled) * rates.texts_per_s
            self._balance = min(self._burst, self._balance + refill)
            self._refilled = now
            if self._balance < least:
                wait_s = (1.0 - self._balance) / rates.texts_per_s
                raise RateLimited(
                    f"This caller may send {rates.texts_per_s:g} texts a second and has sent more. "
                    f"Try again in {math.ceil(wait_s)} s, or ask for a higher rate.",
                    wait_s,
                )
        if rates.texts_per_day is not None:
            now = self._now()
            today = int(now // _DAY_S)
            if today != self._day:
                self._day, self._used = today, 0
            if self._used >= rates.texts_per_day + used_up:
                wait_s = (today + 1) * _DAY_S - now
                raise QuotaExceeded(
                    f"This caller may send {rates.texts_per_day} texts a day and has sent them. "
                    f"Try again in {math.ceil(wait_s)} s, at midnight UTC, or ask for more.",
                    wait_s,
                )
