"""The rule that picks lambda and the stopping step: what it takes, what it refuses, what it measures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from simgan_core import selection
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.evaluation.statistics import Estimate
from simgan_core.models import Refiner, build_networks
from simgan_core.profiles import profile
from simgan_core.selection import (
    ALLOWED_DEG,
    DEG_PER_PX,
    FIT_RMSE_PX,
    MAX_SHIFT_PX,
    Candidate,
    measure_candidate,
    measure_raw,
    select,
)
from simgan_core.simulators import load_assets, simulate_eyes

RAW = Estimate(0.98, 0.97, 0.99, 1, 750)


def candidate(
    auc: float, shift: float, *, lambda_sum: float = 0.2, step: int = 900, lost: float = 1.0, half: float = 0.02
) -> Candidate:
    shift_px = Estimate(shift, shift - 0.05, shift + 0.05, 1, 700)
    return Candidate(lambda_sum, step, Estimate(auc, auc - half, auc + half, 1, 750), shift_px, lost)


def test_of_the_extremes_neither_is_taken() -> None:
    same = candidate(0.975, 0.0, lambda_sum=100)
    good = candidate(0.80, 0.6, lambda_sum=0.2)
    lost = candidate(0.60, 2.4, lambda_sum=0.001)
    found = select([same, good, lost], RAW)
    assert found.chosen == good
    assert "no more real" in found.verdicts[0] and found.verdicts[1] == "chosen" and "label lost" in found.verdicts[2]


def test_the_most_real_wins_and_ties_go_to_the_stronger_self_regularisation() -> None:
    best = candidate(0.80, 0.9, lambda_sum=0.05)
    tie = candidate(0.815, 0.5, lambda_sum=0.5)
    later = candidate(0.812, 0.5, lambda_sum=0.5, step=1200)
    worse = candidate(0.83, 0.2, lambda_sum=3.0)
    found = select([best, tie, later, worse], RAW)
    assert found.chosen == tie
    assert found.verdicts == (
        "tie, weaker self-regularisation or later",
        "chosen",
        "tie, weaker self-regularisation or later",
        "less real than the best",
    )


def test_the_order_of_the_candidates_does_not_matter() -> None:
    candidates = [
        candidate(0.80, 0.9, lambda_sum=0.05),
        candidate(0.80, 0.9, lambda_sum=0.05, step=600),
        candidate(0.81, 0.6, lambda_sum=0.2),
        candidate(0.60, 3.0, lambda_sum=0.01),
    ]
    chosen = {select(order, RAW).chosen for order in itertools.permutations(candidates)}
    assert chosen == {candidates[2]}


def test_the_bound_looks_at_the_interval_and_at_irises_that_are_gone() -> None:
    assert select([candidate(0.7, MAX_SHIFT_PX - 0.06)], RAW).chosen is not None
    assert select([candidate(0.7, MAX_SHIFT_PX - 0.04)], RAW).chosen is None
    assert select([candidate(0.7, 0.3, lost=40.0)], RAW).chosen is None
    assert "40 %" in select([candidate(0.7, 0.3, lost=40.0)], RAW).verdicts[0]


def test_where_nothing_passes_nothing_is_chosen() -> None:
    found = select([candidate(0.98, 0.0), candidate(0.5, 5.0, step=10)], RAW)
    assert found.chosen is None and len(found.verdicts) == 2 and all(found.verdicts)


def test_no_candidates_or_the_same_one_twice_are_refused() -> None:
    for wrong in ([], [candidate(0.7, 0.1), candidate(0.8, 0.2)]):
        with pytest.raises(ValueError, match="at least one expected, each once"):
            select(wrong, RAW)


def test_the_bound_is_what_its_parts_say() -> None:
    assert pytest.approx(1.2) == MAX_SHIFT_PX
    assert pytest.approx(ALLOWED_DEG) == (MAX_SHIFT_PX - FIT_RMSE_PX) * DEG_PER_PX


class Moves(Refiner):
    """Not a refiner at all: moves the image by whole pixels, or paints over it."""

    def __init__(self, pixels: int = 0, *, grey: bool = False) -> None:
        super().__init__(profile("smoke").refiner)
        self.pixels, self.grey = pixels, grey

    def forward(self, synthetic: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(synthetic) if self.grey else synthetic.roll(self.pixels, dims=-1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    folder = tmp_path_factory.mktemp("stores")
    synthetic = simulate_eyes(200, folder / "synthetic", assets=load_assets(None), seed=5, progress=False)
    with StoreWriter(folder / "real", size=(35, 55), provenance={"test": 1}) as writer:
        writer.append((synthetic.images() * 0.6 + 40).astype(np.uint8))
    return synthetic, Store.open(folder / "real")


@pytest.mark.slow
def test_measured_extremes_are_refused(stores: tuple[Store, Store]) -> None:
    synthetic, real = stores
    raw_auc = measure_raw(synthetic, real)
    identical, moved, gone = (
        measure_candidate(refiner, synthetic, real, lambda_sum=1.0, step=step)
        for step, refiner in enumerate((Moves(0), Moves(3), Moves(grey=True)))
    )
    assert identical.auc == raw_auc and identical.shift_px.value == 0
    assert moved.shift_px.value == pytest.approx(3, abs=0.5) and gone.lost_percent == 100
    found = select([identical, moved, gone], raw_auc)
    assert found.chosen is None
    assert "no more real" in found.verdicts[0] and all("label lost" in verdict for verdict in found.verdicts[1:])
    assert identical == measure_candidate(Moves(0), synthetic, real, lambda_sum=1.0, step=0)


def test_labels_of_the_real_store_are_not_read(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("annotations were read")

    monkeypatch.setattr(Store, "annotations", refuse)
    monkeypatch.setattr("simgan_core.evaluation.fresh_discriminator.STEPS", 2)
    refiner, _ = build_networks(profile("smoke"), seed=0)
    synthetic, real = stores
    assert measure_candidate(refiner.eval(), synthetic, real, lambda_sum=0.2, step=8, limit=32).auc.n == 16


def test_both_whole_stores_count(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Images may lie person by person, own renders too: the rule must not know the first one alone."""
    synthetic, real = stores
    seen: list[np.ndarray] = []
    rendered: list[np.ndarray] = []
    original = selection.fresh_discriminator
    monkeypatch.setattr(
        selection,
        "fresh_discriminator",
        lambda a, b, **k: (rendered.append(a), seen.append(b), original(a, b, **k, steps=2))[-1],
    )
    measure_raw(synthetic, real, limit=40)
    assert np.array_equal(seen[0][[0, -1]], real.images([0, len(real) - 1])) and len(seen[0]) == 40 < len(real)
    assert np.array_equal(rendered[0][[0, -1]], synthetic.images([0, len(synthetic) - 1])) and len(rendered[0]) == 40
