"""Measurements without labels as a test wants them, so that the rule's choice is known beforehand."""

from __future__ import annotations

import pytest

from simgan_core import selection, stops
from simgan_core.evaluation.statistics import Estimate
from simgan_core.selection import MAX_SHIFT_PX, Candidate


def chosen_by_hand(monkeypatch: pytest.MonkeyPatch, wanted: tuple[float, int] | None) -> None:
    """Let the measurement prefer one candidate; None: let all of them lose the label."""

    def measured(*_: object, lambda_sum: float, step: int, **__: object) -> Candidate:
        auc = 0.6 if (lambda_sum, step) == wanted else 0.8
        shift = MAX_SHIFT_PX + 1 if wanted is None else 0.3
        return Candidate(
            lambda_sum, step, Estimate(auc, auc - 0.02, auc + 0.02, 1, 20), Estimate(shift, shift, shift, 1, 20), 0.0
        )

    monkeypatch.setattr(stops, "measure_candidate", measured)
    monkeypatch.setattr(selection, "measure_raw", lambda *_, **__: Estimate(0.98, 0.97, 0.99, 1, 20))
