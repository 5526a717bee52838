"""Is the label kept? The instruments against the simulator's own labels and against known shifts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from simgan_core.datasets.prepare import gaze_prior_ranges
from simgan_core.datasets.store import Store
from simgan_core.evaluation.annotation import (
    NoIrisError,
    NothingToFollowError,
    fit_iris,
    iris_shift,
    lid_shift,
    pupil_labels,
    pupil_shift,
    validate_fit,
)
from simgan_core.regularisation import annotation_table, contour_shifts, iris_positions
from simgan_core.selection import DEG_PER_PX, FIT_RMSE_PX
from simgan_core.simulators import load_assets, simulate_eyes
from simgan_core.simulators.ranges import EyeRanges

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
UNITYEYES = DATA_ROOT / "unityeyes2"
needs_unityeyes = pytest.mark.skipif(not UNITYEYES.is_dir(), reason=f"no {UNITYEYES}; set SIMGAN_DATA_ROOT")
COUNT = 120
MANY = 300  # of which a few gross failures do not decide the mean


CLEAR = replace(
    EyeRanges(), head_follow=0.3, head_yaw_normal_deg=(0.0, 7.0), sclera_tone=(0.3, 0.85),
    light_elevation_normal_deg=(15.0, 22.0), light_azimuth_normal_deg=(0.0, 35.0), light_intensity=(0.3, 1.5),
    ambient_intensity=(0.3, 0.9), screen_intensity=(0.0, 0.6), shadow_strength=(0.4, 0.9), occlusion=(0.2, 1.4),
)  # fmt: skip

"""Light from the front and bright eye whites: here an instrument that works finds what was done to the images."""


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("eyes") / "store"
    return simulate_eyes(COUNT, out, assets=load_assets(None), ranges=CLEAR, seed=3, progress=False)


@pytest.fixture(scope="module")
def many_eyes(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("many") / "store"
    return simulate_eyes(MANY, out, assets=load_assets(None), ranges=CLEAR, seed=3, progress=False)


def moved(images: np.ndarray, across: float, down: float) -> np.ndarray:
    values = [shift(image[0].astype(float), (down, across), order=3, mode="nearest") for image in images]
    return np.stack(values).round().clip(0, 255).astype(np.uint8)[:, None]


def restyled(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """What refinement may do: another contrast and brightness, blur and noise, everything in its place."""
    noise = np.random.default_rng(seed).normal(0, 6, images.shape)
    blurred = gaussian_filter(images.astype(float), (0, 0, 0.6, 0.6))
    return (30 + 0.75 * blurred + noise).round().clip(0, 255).astype(np.uint8)


def check_fit(store: Store, typical_px: float, gross_percent: float, median_px: float) -> None:
    quality = validate_fit(fit_iris(store.images()), pupil_labels(store))
    assert quality.valid >= 0.9 * quality.n, quality
    assert quality.typical_rmse_px <= typical_px and quality.gross_percent <= gross_percent, quality
    assert quality.median_px <= median_px and np.abs(quality.bias_px).max() <= 0.5, quality


def test_the_fit_finds_the_labelled_centres_in_clear_light(eyes: Store) -> None:
    check_fit(eyes, typical_px=0.9, gross_percent=4, median_px=0.5)


def test_the_fit_finds_most_centres_in_light_from_any_side(tmp_path: Path) -> None:
    """Half of a grey eye white may be as dark as the iris there."""
    store = simulate_eyes(2 * COUNT, tmp_path / "eyes", assets=load_assets(None), seed=3, progress=False)
    check_fit(store, typical_px=1.0, gross_percent=13, median_px=0.65)


@needs_unityeyes
def test_the_fit_is_as_good_on_unityeyes_as_the_selection_rule_counts_on(tmp_path: Path) -> None:
    ranges = gaze_prior_ranges(DATA_ROOT)
    store = simulate_eyes(
        2 * COUNT, tmp_path / "eyes", assets=load_assets(UNITYEYES), ranges=ranges, seed=8, progress=False
    )
    check_fit(store, typical_px=FIT_RMSE_PX, gross_percent=8, median_px=0.4)


def test_labels_off_by_a_pixel_show_as_bias(eyes: Store) -> None:
    fit, truth = fit_iris(eyes.images()), pupil_labels(eyes)
    here, off = validate_fit(fit, truth), validate_fit(fit, truth + [1.0, 0.0])
    assert off.bias_px[0] == pytest.approx(here.bias_px[0] - 1.0, abs=1e-6) and off.rmse_px > here.rmse_px + 0.3


def test_no_iris_is_found_where_there_is_none(eyes: Store) -> None:
    rng = np.random.default_rng(0)
    flat = np.full((4, 1, 35, 55), 128, np.uint8)
    skin = gaussian_filter(rng.normal(128, 60, (40, 1, 35, 55)), (0, 0, 3, 3)).clip(0, 255).astype(np.uint8)
    assert not fit_iris(flat).valid.any() and np.isnan(fit_iris(flat).centre).all()
    assert fit_iris(skin).valid.mean() < 0.25
    with pytest.raises(NoIrisError, match="destroyed"):
        pupil_shift(eyes.images(slice(0, 4)), flat)
    with pytest.raises(NothingToFollowError, match="no iris found in 4 synthetic images"):
        pupil_shift(flat, flat)
    with pytest.raises(ValueError, match="no iris found"):
        validate_fit(fit_iris(flat), np.zeros((4, 2)))


def test_float_images_give_the_same_fit(eyes: Store) -> None:
    images = eyes.images(slice(0, 8))
    assert np.allclose(fit_iris(images).centre, fit_iris(images / 127.5 - 1).centre, atol=1e-2, equal_nan=True)


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 2.0])
def test_known_shifts_are_recovered(many_eyes: Store, distance: float) -> None:
    across, down = 0.8 * distance, 0.6 * distance
    images = many_eyes.images()
    after = restyled(moved(images, across, down))
    fitted = pupil_shift(images, after)
    assert np.allclose(fitted.bias_px, [across, down], atol=0.25 + 0.12 * distance), fitted
    assert fitted.lost_percent < 15
    for measured, tolerance in ((iris_shift(many_eyes, after, MANY), 0.12), (lid_shift(many_eyes, after, MANY), 0.15)):
        tolerance += 0.04 * distance
        assert np.allclose(measured.bias_px, [across, down], atol=tolerance), measured
        assert np.allclose(np.median(measured.translation_px[0], axis=0), [across, down], atol=tolerance)
        assert measured.lost_percent < 25


def test_the_same_images_have_not_moved(eyes: Store) -> None:
    images = eyes.images()
    for same in (pupil_shift(images, images), iris_shift(eyes, eyes, COUNT), lid_shift(eyes, images, COUNT)):
        assert same.mean_px.value < 1e-2 and same.lost_percent == 0


def test_contours_of_iris_and_lids_are_both_measured(eyes: Store) -> None:
    """One of the two was once left out by a misspelt column, and no report said so."""
    found = contour_shifts(eyes, [eyes], COUNT)
    assert set(found) == {"iris", "lids"} and all(one.mean_px.value < 1e-2 for one in found.values())
    assert len(annotation_table(pupil_shift(eyes.images(), eyes.images()), found)) == 3


def test_a_refiner_that_moves_irises_to_the_targets_is_seen(many_eyes: Store) -> None:
    """As one does whose renders look elsewhere than the target, on average."""
    images = many_eyes.images()
    low = moved(images, 0, 1.0)
    table = iris_positions(low, [images, images], images).set_index("irises of")
    renders, refined, target = (table.loc[what] for what in ("renders", "refined", "target, unlabelled"))
    assert refined["mean v (px)"] == pytest.approx(target["mean v (px)"]) and refined["seeds"] == 2
    assert renders["mean v (px)"] - target["mean v (px)"] == pytest.approx(1.0, abs=0.35)
    assert renders["mean u (px)"] == pytest.approx(target["mean u (px)"], abs=0.35)


def test_positions_without_any_iris_are_not_numbers() -> None:
    flat = np.full((4, 1, 35, 55), 128, np.uint8)
    table = iris_positions(flat, [flat], flat)
    assert table["mean v (px)"].isna().all() and (table["found (%)"] == 0).all()


def test_a_larger_shift_measures_larger_and_another_image_is_lost(eyes: Store) -> None:
    images = eyes.images()
    small, large = (iris_shift(eyes, moved(images, distance, 0), COUNT).mean_px for distance in (0.5, 1.5))
    assert small.high < large.low
    other = iris_shift(eyes, images[::-1].copy(), COUNT)
    assert other.lost_percent > 30


def test_seeds_are_rows_of_the_result(eyes: Store) -> None:
    images = eyes.images()
    shifts = pupil_shift(images, [restyled(images, 0), restyled(images, 1)])
    assert shifts.mean_px.seeds == 2 and shifts.distances_px.shape == (2, shifts.mean_px.n)
    assert shifts.mean_px.low < shifts.mean_px.value < shifts.mean_px.high
    assert shifts.to_dict()["seeds"] == 2
    assert lid_shift(eyes, [images, images], COUNT).translation_px.shape[0] == 2


def test_images_that_do_not_correspond_are_refused(eyes: Store) -> None:
    images = eyes.images()
    with pytest.raises(ValueError, match="same images"):
        pupil_shift(images, images[:5])
    with pytest.raises(ValueError, match="no refined images"):
        pupil_shift(images, [])


def test_a_pixel_is_as_many_degrees_as_the_selection_rule_says(eyes: Store) -> None:
    table = eyes.annotations(["pupil_u", "pitch", "yaw"])
    across = np.cos(table["pitch"]) * np.sin(table["yaw"])
    px_per_unit = np.polyfit(across, table["pupil_u"], 1)[0]
    assert np.rad2deg(1 / abs(px_per_unit)) == pytest.approx(DEG_PER_PX, rel=0.2)
