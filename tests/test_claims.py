"""The claims' thresholds and verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from simgan_core.claims import BY_ID, CLAIMS, Threshold, judge
from simgan_core.evaluation.statistics import two_level_bootstrap


@dataclass(frozen=True)
class Measured:
    value: float
    low: float
    high: float
    seeds: int = 3
    n: int = 750


def test_the_eight_claims_of_the_paper_are_there_once() -> None:
    assert [claim.id for claim in CLAIMS] == [f"C{i}" for i in range(1, 9)]


@pytest.mark.parametrize("claim_id", [claim.id for claim in CLAIMS if claim.threshold is not None])
def test_no_threshold_admits_the_null_value(claim_id: str) -> None:
    claim = BY_ID[claim_id]
    assert claim.threshold is not None
    assert not claim.threshold.holds(claim.null, claim.null)


def test_the_whole_interval_must_clear_the_bound() -> None:
    assert Threshold("above", 0.0).holds(0.1, 9.0)
    assert not Threshold("above", 0.0).holds(-0.1, 9.0)
    assert Threshold("below", 2.0).holds(0.5, 1.9)
    assert not Threshold("below", 2.0).holds(0.5, 2.1)


def test_a_clear_gain_is_supported_and_a_loss_is_not() -> None:
    assert judge("C3", Measured(28.0, 20.0, 35.0), profile="cpu").verdict == "supported"
    assert judge("C3", Measured(5.0, -3.0, 12.0), profile="cpu").verdict == "not supported"
    assert judge("C3", Measured(-28.0, -35.0, -20.0), profile="cpu").verdict == "not supported"


def test_a_refuted_claim_is_not_supported_whatever_its_estimate() -> None:
    kept = judge("C5", Measured(0.5, 0.4, 0.6), profile="cpu", note="found")
    assert kept.verdict == "supported"
    refuted = judge("C5", Measured(0.5, 0.4, 0.6), profile="cpu", note="found", refuted="half are lost")
    assert (refuted.verdict, refuted.note) == ("not supported", "found; half are lost")
    assert judge("C5", None, profile="cpu", refuted="none is found").verdict == "not supported"
    assert judge("C5", None, profile="smoke", refuted="none is found").verdict == "not evaluated"


def test_smoke_runs_and_missing_measurements_judge_nothing() -> None:
    assert judge("C3", Measured(28.0, 20.0, 35.0), profile="smoke").verdict == "not evaluated"
    missing = judge("C1", None, profile="cpu")
    assert missing.verdict == "not evaluated"
    assert missing.ours is None


def test_a_result_carries_what_the_contract_names() -> None:
    row = judge("C2", Measured(7.0, 4.0, 9.0), profile="cpu").to_dict()
    assert {
        "id", "title", "paper", "ours", "low", "high", "unit", "seeds", "n", "verdict", "notebook"
    } <= set(row)  # fmt: skip


def test_the_note_tells_what_each_seed_says() -> None:
    """Three seeds that disagree support nothing, however many images there are: resampling them once did."""
    differences = np.array([1.0, 2.0, 6.0])[:, None] + np.tile([-1.0, 1.0], 400)
    result = judge("C2", two_level_bootstrap(differences), profile="cpu", note="of real images")
    assert result.verdict == "not supported" and result.low is not None and result.low < 0
    # Student, 2 degrees of freedom: 3 +- 4.303 * 2.646 / sqrt(3)
    assert result.note == "of real images; by seed +1, +2, +6; t interval over seeds alone -3.57 to 9.57"
    assert judge("C2", two_level_bootstrap(differences[:1]), profile="cpu").note == "", "one seed has no spread"


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="known claims are C1"):
        judge("C9", None, profile="cpu")
    with pytest.raises(ValueError, match="outside its interval"):
        judge("C2", Measured(7.0, 8.0, 9.0), profile="cpu")
