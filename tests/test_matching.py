"""Histogram and Fourier-amplitude matching: known answers, and that no image leaks into another."""

from __future__ import annotations

import numpy as np
import pytest

from simgan_core.evaluation.matching import match_amplitudes, match_histograms, matched


def noise(count: int, seed: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (count, 1, 12, 16)).astype(np.uint8)


def all_different(seed: int) -> np.ndarray:
    """One image of 12 x 16 in which every grey level occurs once."""
    return np.random.default_rng(seed).permutation(192).astype(np.uint8).reshape(1, 1, 12, 16)


def test_the_histogram_becomes_the_references() -> None:
    image, reference = all_different(0), noise(1, 1, 40, 90)
    out = match_histograms(image, reference)
    np.testing.assert_array_equal(np.sort(out.ravel()), np.sort(reference.ravel()))
    assert np.all(np.diff(out.ravel()[np.argsort(image.ravel())].astype(int)) >= 0), "the order of levels is kept"


def test_few_levels_take_the_references_quantiles() -> None:
    image = np.repeat(np.array([10, 20], np.uint8), 96).reshape(1, 1, 12, 16)  # half dark, half bright
    out = match_histograms(image, np.arange(192, dtype=np.uint8).reshape(1, 1, 12, 16))
    assert out.ravel()[0] == pytest.approx(48, abs=1) and out.ravel()[-1] == pytest.approx(144, abs=1)


def test_an_image_matches_itself() -> None:
    images = noise(3, 2)
    np.testing.assert_array_equal(match_histograms(images, images), images)
    assert np.abs(match_amplitudes(images, images).astype(int) - images).max() <= 1


def test_beta_zero_is_the_identity_and_more_is_not() -> None:
    images, references = noise(2, 3), noise(2, 4)
    np.testing.assert_array_equal(match_amplitudes(images, references, 0.0), images)
    assert np.abs(match_amplitudes(images, references, 0.2).astype(int) - images).mean() > 1


def test_low_amplitudes_are_exchanged_and_high_ones_and_phases_kept() -> None:
    image, reference = noise(1, 5, 100, 156), noise(1, 6, 90, 166)  # far from 0 and 255: nothing is clipped
    before, other, after = (np.fft.fft2(x[0, 0].astype(float)) for x in (image, reference, match_amplitudes(
        image, reference, 0.2)))  # fmt: skip
    rounding = 30
    low, high = (2, 14), (5, 8)  # 2 is reached with 0.2 of 12 rows; column 14 is frequency -2
    assert abs(after[low]) == pytest.approx(abs(other[low]), abs=rounding)
    assert abs(after[0, 0]) == pytest.approx(abs(other[0, 0]), abs=rounding)
    assert abs(after[high]) == pytest.approx(abs(before[high]), abs=rounding)
    assert abs(before[low] - other[low]) > 3 * rounding, "the test must tell them apart"
    turn = np.angle(after[low] / before[low])
    assert abs(turn) < 0.2


@pytest.mark.parametrize("how", ["histogram", "fourier"])
def test_references_are_drawn_by_the_seed(how: str) -> None:
    images, real = noise(40, 7), noise(9, 8, 60, 120)
    first = matched(images, real, how, seed=0)
    assert first.shape == images.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, matched(images, real, how, seed=0))
    assert not np.array_equal(first, matched(images, real, how, seed=1))
    assert abs(first.mean() - real.mean()) < 3 < abs(images.mean() - real.mean())


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="channels and size, expected"):
        matched(noise(2, 0), noise(2, 0)[:, :, :6], "fourier", seed=0)
    with pytest.raises(ValueError, match="at least one"):
        matched(noise(2, 0), noise(0, 0), "histogram", seed=0)
    with pytest.raises(ValueError, match="beta is 0.7"):
        match_amplitudes(noise(1, 0), noise(1, 1), 0.7)
