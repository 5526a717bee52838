"""Distances to real images: known answers for equal, blurred and shifted distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from toy_eyes import toy_eyes

from simgan_core.evaluation.fresh_discriminator import area_under_curve, fresh_discriminator
from simgan_core.evaluation.realism import (
    PATCH_STATISTICS,
    _unbiased,
    gaze_feature_kernel_distance,
    gaze_features,
    measure_realism,
    patch_distance,
    patch_statistics,
)
from simgan_core.gaze_estimator import GazeCNN


def eyes(count: int, seed: int, *, blur: float = 0.0, brighter: float = 0.0) -> np.ndarray:
    images = toy_eyes(count, seed, real=True)[0].astype(float)
    if blur:
        images = gaussian_filter(images, (0, 0, blur, blur))
    return (images + brighter).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model() -> GazeCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GazeCNN(width=0.25).eval()


def test_equal_distributions_are_at_no_distance(model: GazeCNN) -> None:
    a, b = eyes(240, 1), eyes(240, 2)
    patches = patch_distance(a, b)
    kernel = gaze_feature_kernel_distance(gaze_features(model, a), gaze_features(model, b))
    assert patches.low < 0 < patches.high and abs(patches.value) < 0.02
    assert kernel.low < 0 < kernel.high
    assert patches.n == kernel.n == 240


def test_zero_is_in_the_interval_of_equal_distributions_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(60):
        a, b = rng.normal(size=(60, 4)), rng.normal(size=(80, 4))
        found = gaze_feature_kernel_distance(a, b)
        hits.append(found.low <= 0 <= found.high)
    assert np.mean(hits) >= 0.9


def test_the_kernel_distance_is_unbiased_and_right_for_known_gaussians() -> None:
    # E (x.y / F + 1)^3 with F = 1, x ~ N(0, 1), y ~ N(c, 1), in units where E y^2 = 1
    rng = np.random.default_rng(1)
    c = 1.0
    values = [
        gaze_feature_kernel_distance(rng.normal(size=(50, 1)), rng.normal(c, 1, (50, 1))).value for _ in range(300)
    ]
    scale2 = 1 + c**2
    x = {1: 0.0, 2: 1.0, 3: 0.0}
    y = {1: c, 2: c**2 + 1, 3: c**3 + 3 * c}

    def kernel(a: dict[int, float], b: dict[int, float]) -> float:
        return 1 + 3 * a[1] * b[1] / scale2 + 3 * a[2] * b[2] / scale2**2 + a[3] * b[3] / scale2**3

    expected = kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    assert np.mean(values) == pytest.approx(expected, rel=0.1)


def test_the_jackknife_interval_is_as_wide_as_repetitions_spread() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(150):
        a, b = rng.normal(size=(80, 3)), rng.normal(0.8, 1, (80, 3))
        found.append(_unbiased(-cdist(a, a), -cdist(b, b), -cdist(a, b)))
    spread = np.std([estimate.value for estimate in found])
    claimed = np.mean([estimate.high - estimate.low for estimate in found]) / (2 * 1.96)
    assert claimed == pytest.approx(spread, rel=0.25)


def test_distances_grow_with_blur(model: GazeCNN) -> None:
    real, features = eyes(160, 1), gaze_features(model, eyes(160, 1))
    sharp, soft, softer, softest = (eyes(160, 2, blur=sigma) for sigma in (0.0, 0.5, 1.0, 2.0))
    patches = [patch_distance(images, real).value for images in (sharp, soft, softer, softest)]
    kernels = [gaze_feature_kernel_distance(gaze_features(model, x), features).value for x in (sharp, soft, softest)]
    assert patches == sorted(patches) and patches[1] > 0.05
    assert kernels == sorted(kernels)


def test_patch_statistics_measure_what_they_are_called() -> None:
    across = np.tile(np.arange(55) * 4, (35, 1)).astype(np.uint8)[None, None]
    table = patch_statistics(np.concatenate([across, np.full_like(across, 77)]))
    assert table.shape == (2, 24, len(PATCH_STATISTICS))
    ramp, flat = (dict(zip(PATCH_STATISTICS, row[0], strict=True)) for row in table)
    assert np.exp(ramp["gradient_across"]) == pytest.approx(16, rel=0.01)
    assert np.exp(ramp["gradient_down"]) == pytest.approx(1 / 12)
    assert ramp["dct_low"] > ramp["dct_middle"] > ramp["dct_high"]
    assert flat["level"] == 77 and flat["contrast"] == 0


def test_a_fresh_discriminator_cannot_tell_equal_distributions_apart() -> None:
    found = fresh_discriminator(eyes(300, 1), eyes(300, 2), steps=60)
    assert found.auc.low - 0.03 < 0.5 < found.auc.high + 0.03 and 0.4 < found.auc.value < 0.6
    assert len(found.scores_images) == len(found.scores_real) == found.auc.n == 150


def test_a_fresh_discriminator_sees_a_visible_difference_and_is_deterministic() -> None:
    real, brighter = eyes(120, 1), eyes(120, 2, brighter=60.0)
    found, again = (fresh_discriminator(brighter, real, steps=40) for _ in range(2))
    assert found.auc.value > 0.95 and found.auc.low > 0.9
    assert found.auc == again.auc and np.array_equal(found.scores_real, again.scores_real)


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert area_under_curve(np.array([1.0, 2.0]), np.array([0.0, 1.0])).value == pytest.approx(3.5 / 4)
    assert area_under_curve(np.arange(50) + 100.0, np.arange(50.0)).low == 1.0
    rng = np.random.default_rng(0)
    estimate = area_under_curve(rng.normal(1, 1, 4000), rng.normal(0, 1, 4000))
    assert estimate.value == pytest.approx(0.7602, abs=0.02) and estimate.low < 0.7602 < estimate.high


def test_all_three_at_once(model: GazeCNN) -> None:
    found = measure_realism(eyes(40, 1), eyes(60, 2), model=model, limit=32).to_dict()
    assert set(found) == {"patch_distance", "auc", "kernel_distance"} and found["patch_distance"]["n"] == 32
    assert measure_realism(eyes(16, 1), eyes(16, 2)).kernel_distance is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="equal C, H, W"):
        fresh_discriminator(eyes(20, 1), eyes(20, 1)[..., :50])
    with pytest.raises(ValueError, match="at least 3"):
        patch_distance(eyes(2, 1), eyes(9, 2))
    with pytest.raises(ValueError, match="all 0"):
        gaze_feature_kernel_distance(np.ones((5, 2)), np.zeros((5, 2)))
