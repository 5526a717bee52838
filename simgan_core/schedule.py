"""The learning-rate schedule of both estimators, of gaze and of hands."""

from __future__ import annotations

import math

WARM_UP_PARTS = 20
"""One part in so many of the steps is a linear rise to the peak rate, against dead units."""


def warm_up_cosine(step: int, steps: int) -> float:
    """Share of the peak rate at a step, counted from 0, of `steps`: a short rise, then half a cosine."""
    rise = min(1.0, (step + 1) * WARM_UP_PARTS / steps)
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
