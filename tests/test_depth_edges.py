"""The edge measure: 0 for equal edges, larger the more they differ, blind to where the hand is."""

from __future__ import annotations

import numpy as np
import pytest

from simgan_core.evaluation.depth_edges import (
    BINS,
    change_strength,
    edge_advantage,
    edge_band,
    edge_counts,
    edge_distance,
    edge_estimate,
)


def discs(count: int, seed: int, *, torn: float = 0.0, soft: float = 0.0, side: int = 56) -> np.ndarray:
    """Discs of one depth; `torn` loses that share of the pixels beside the edge, `soft` blurs it over pixels."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:side, :side]
    middle, radius = rng.uniform(22, 34, (count, 2, 1, 1)), rng.uniform(10, 16, (count, 1, 1))
    outside = np.hypot(u - middle[:, 0], v - middle[:, 1]) - radius
    images = 150 * np.clip(0.5 - outside / soft, 0, 1) if soft else np.where(outside < 0, 150.0, 0.0)
    lost = (np.abs(outside) < 2) & (rng.uniform(size=images.shape) < torn)
    return np.where(lost, 0, images).astype(np.uint8)[:, None]


def test_band_follows_the_silhouette() -> None:
    images = np.zeros((1, 1, 56, 56), np.uint8)
    images[..., 20:, :] = 120
    rows = np.flatnonzero(edge_band(images)[0, :, 30])
    assert rows.tolist() == [18, 19, 20, 21]
    large = np.kron(images, np.ones((1, 1, 4, 4), np.uint8))
    assert edge_band(large)[0, :, 30].sum() == 16, "the band scales with the crop"
    assert not edge_band(np.zeros_like(images)).any()


def test_strength_of_known_changes() -> None:
    flat = np.full((1, 1, 8, 8), 90, np.uint8)
    assert change_strength(flat).max() == 0
    flat[0, 0, 4, 4] = 10
    assert change_strength(flat)[0, 4, 4] == 80 and change_strength(flat)[0, 4, 3] == 20
    ramp = np.broadcast_to(np.arange(0, 80, 10, dtype=np.uint8), (1, 1, 8, 8))
    assert change_strength(ramp)[0, :, 1:-1].max() == 0, "a slope is no edge"


def test_distance_is_that_of_scipy() -> None:
    from scipy.stats import wasserstein_distance

    a, b = edge_counts(discs(20, 0)), edge_counts(discs(20, 1, torn=0.3))
    bins = np.arange(BINS) * 4.0
    expected = wasserstein_distance(bins, bins, a.sum(axis=0), b.sum(axis=0))
    assert edge_distance(a, b) == pytest.approx(expected)


def test_nearer_edges_have_a_smaller_distance() -> None:
    target = edge_counts(discs(100, 0, torn=0.3))
    same, clean, soft = (
        edge_distance(edge_counts(images), target)
        for images in (discs(100, 1, torn=0.3), discs(100, 1), discs(100, 1, soft=4.0))
    )
    assert same < 0.5 < 3 < clean and clean < soft
    assert edge_distance(edge_counts(np.zeros((3, 1, 56, 56), np.uint8)), target) > clean, "no hand at all is far"


def test_advantage_of_the_better_one_is_positive_with_interval() -> None:
    target = edge_counts(discs(100, 0, torn=0.3))
    better = np.stack([edge_counts(discs(60, 5, torn=0.25)) for _ in range(2)])
    worse = np.stack([edge_counts(discs(60, 5, soft=3.0)) for _ in range(2)])
    gain = edge_advantage(better, worse, target, draws=200)
    assert gain.low > 0 and (gain.seeds, gain.n) == (2, 60)
    back = edge_advantage(worse, better, target, draws=200)
    assert back.high < 0 and back.value == pytest.approx(-gain.value)
    assert edge_advantage(better, better, target, draws=50).value == 0
    estimate = edge_estimate(better, target, draws=200)
    assert estimate.low <= estimate.value <= estimate.high
