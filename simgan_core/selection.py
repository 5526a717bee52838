"""Which lambda, and when to stop? A rule that needs no label of a real image (docs/selection.md says why it is so).

Of the candidates that keep the label (the iris moves by less than `MAX_SHIFT_PX`) and that look more real than raw
renders, take the one that a discriminator trained from scratch tells from real images worst. Candidates that it cannot
tell from that best one are ties; of these the strongest self-regularisation wins, then the fewest steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from simgan_core.datasets.store import Store
from simgan_core.evaluation.annotation import NoIrisError, pupil_shift
from simgan_core.evaluation.fresh_discriminator import fresh_discriminator
from simgan_core.evaluation.statistics import Estimate
from simgan_core.models import Refiner
from simgan_core.refine import refine_images

FIT_RMSE_PX = 0.7
"""Error of one ellipse fit against the simulator's labels, but for about 5 % gross failures: 0.6 px on
UnityEyes' assets, rounded up. tests/test_annotation.py holds the fit to it."""

DEG_PER_PX = 3.5
"""Gaze that moves the pupil by one pixel, at an eye width of 55: the pupil is 16 px before the eyeball's centre, and
one radian over that is 3.5 degrees. tests/test_selection.py compares it with rendered eyes."""

ALLOWED_DEG = 1.75
"""Shift of the label that is put up with: added in quadrature to an error of 4.5 degrees it makes 4.8."""

MAX_SHIFT_PX = FIT_RMSE_PX + ALLOWED_DEG / DEG_PER_PX
"""1.2 px: the noise of the fit and the allowed shift. People who drew ellipses measured 1.1 px in the paper."""

MAX_LOST_PERCENT = 10.0
"""Irises that may no longer be found. Shifts are measured on the others, so without this bound a refiner could pass by
destroying the difficult ones."""


@dataclass(frozen=True)
class Candidate:
    """One refiner: where it stands in the sweep, and what was measured without real labels."""

    lambda_sum: float
    step: int
    auc: Estimate  # of a fresh discriminator, refined against real; 0.5 = cannot tell
    shift_px: Estimate  # of the fitted iris centres
    lost_percent: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        measured = {"auc": self.auc.to_dict(), "shift_px": self.shift_px.to_dict(), "lost_percent": self.lost_percent}
        return {"lambda_sum": self.lambda_sum, "step": self.step} | measured


@dataclass(frozen=True)
class Selection:
    """What the rule took, None where nothing passed, and one verdict per candidate in their order."""

    chosen: Candidate | None
    raw_auc: Estimate
    verdicts: tuple[str, ...]


def select(candidates: Sequence[Candidate], raw_auc: Estimate) -> Selection:
    """Apply the rule; the order of the candidates does not matter. `raw_auc` is that of unrefined renders.

    Raises ValueError without candidates, or if two have the same lambda and step.
    """
    places = [(candidate.lambda_sum, candidate.step) for candidate in candidates]
    if not places or len(set(places)) < len(places):
        raise ValueError(f"candidates (lambda, step) {places} found; at least one expected, each once")
    reasons = [_reason_against(candidate, raw_auc) for candidate in candidates]
    passed = [candidate for candidate, reason in zip(candidates, reasons, strict=True) if not reason]
    if not passed:
        return Selection(None, raw_auc, tuple(reasons))
    best = min(passed, key=lambda candidate: (candidate.auc.value, -candidate.lambda_sum, candidate.step))
    ties = [candidate for candidate in passed if candidate.auc.value <= best.auc.high]
    chosen = max(ties, key=lambda candidate: (candidate.lambda_sum, -candidate.step))
    verdicts = [
        reason or _verdict(candidate, chosen, ties) for candidate, reason in zip(candidates, reasons, strict=True)
    ]
    return Selection(chosen, raw_auc, tuple(verdicts))


def _reason_against(candidate: Candidate, raw_auc: Estimate) -> str:
    """Why a candidate cannot be taken; empty if it can."""
    if candidate.lost_percent > MAX_LOST_PERCENT:
        return f"label lost: {candidate.lost_percent:.0f} % of the irises are gone, {MAX_LOST_PERCENT:.0f} allowed"
    if candidate.shift_px.high > MAX_SHIFT_PX:
        return f"label lost: shift up to {candidate.shift_px.high:.2f} px, {MAX_SHIFT_PX:.2f} allowed"
    if candidate.auc.high >= raw_auc.low:
        return f"no more real than raw renders: AUC up to {candidate.auc.high:.3f}, theirs from {raw_auc.low:.3f}"
    return ""


def _verdict(candidate: Candidate, chosen: Candidate, ties: Sequence[Candidate]) -> str:
    if candidate is chosen:
        return "chosen"
    return "tie, weaker self-regularisation or later" if candidate in ties else "less real than the best"


def measure_raw(synthetic: Store, real: Store, *, seed: int = 0, limit: int = 1500) -> Estimate:
    """AUC of a fresh discriminator between raw renders and real images: what a candidate must be below."""
    raw = synthetic.images(synthetic.spread(limit))
    return fresh_discriminator(raw, real.images(real.spread(limit)), seed=seed).auc


def measure_candidate(
    refiner: Refiner, synthetic: Store, real: Store, *, lambda_sum: float, step: int, seed: int = 0, limit: int = 1500
) -> Candidate:
    """Measure one refiner on `limit` renders and as many real images, both spread over all; no label is read.

    An R that leaves no iris to be found is a candidate with everything lost and not an error.
    """
    raw = synthetic.images(synthetic.spread(limit))
    refined = refine_images(refiner, raw)
    auc = fresh_discriminator(refined, real.images(real.spread(limit)), seed=seed).auc
    candidate = Candidate(lambda_sum, step, auc, Estimate(0.0, 0.0, 0.0, 1, 0), 100.0)
    try:
        shift = pupil_shift(raw, refined)
    except NoIrisError:
        return candidate
    return replace(candidate, shift_px=shift.mean_px, lost_percent=shift.lost_percent)
