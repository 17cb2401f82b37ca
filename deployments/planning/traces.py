"""Requests a second over time: a day, and a flash crowd on top of it."""

from __future__ import annotations

import math

import numpy as np

from deployments.pipeline.types import Float64

DAY_S = 86_400


def day(peak_per_s: float, night_share: float = 0.25, step_s: float = 1.0) -> Float64:
    """A day as a cosine, lowest at 3 o'clock and highest at 15: float64 [DAY_S / step_s].

    night_share: the lowest, of the peak.
    """
    t = np.arange(0, DAY_S, step_s)
    wave = (1 - np.cos(2 * math.pi * (t / DAY_S - 3 / 24))) / 2
    return peak_per_s * (night_share + (1 - night_share) * wave)


def with_crowd(
    trace: Float64, at_s: float, factor: float, lasts_s: float, rises_s: float, step_s: float = 1.0
) -> Float64:
    """The trace, and a crowd: within `rises_s` it is `factor` times what it was, for `lasts_s`,
    and then dies away by half in each `lasts_s`."""
    t = np.arange(len(trace)) * step_s - at_s
    rising = np.clip(t / max(rises_s, 1e-9), 0, 1)
    fading = 0.5 ** np.maximum((t - lasts_s) / lasts_s, 0)
    return np.asarray(trace * (1 + (factor - 1) * rising * fading), np.float64)
