"""Gaze errors (section 3.1, tables 2 and 3): mean angle, median, percentage of images within 7 degrees.

Angles are pitch and yaw in radians, [N, 2] or, with one row of images per person, [persons, N, 2]. The interval of a
result over several persons resamples persons, as images of one person resemble each other; otherwise images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.npz import read_arrays
from simgan_core.evaluation.statistics import mean_interval
from simgan_core.gaze import angular_error_deg

Floats = NDArray[np.floating[Any]]
WITHIN_DEG = 7.0  # table 2
REMEDY = "save one with numpy.savez(file, pitch_yaw=…, predicted=…), radians, [N, 2]"


@dataclass(frozen=True)
class GazeReport:
    """Result of one set of predictions; degrees and percent, with 95 % intervals of the mean and of the percentage."""

    mean_error_deg: float
    low: float
    high: float
    median_error_deg: float
    within_7_deg: float
    within_7_low: float
    within_7_high: float
    n: int
    persons: int
    errors_deg: Floats  # [N] or [persons, N]

    def to_dict(self) -> dict[str, float | int | None]:
        """Everything but the errors, as plain JSON; None where there is no interval."""
        names = [name for name in self.__dataclass_fields__ if name != "errors_deg"]
        values = {name: getattr(self, name) for name in names}
        return {name: None if value != value else value for name, value in values.items()}

    def per_person(self) -> pd.DataFrame:
        """One row per person: mean and median error in degrees, percentage within 7 degrees, number of images."""
        errors = np.atleast_2d(self.errors_deg)
        return pd.DataFrame(
            {
                "person": np.arange(len(errors)),
                "mean_error_deg": errors.mean(axis=1),
                "median_error_deg": np.median(errors, axis=1),
                "within_7_deg": 100.0 * (errors <= WITHIN_DEG).mean(axis=1),
                "n": errors.shape[1],
            }
        )


def evaluate_gaze(truth: Floats, predicted: Floats) -> GazeReport:
    """Compare pitch and yaw, radians, [N, 2] or [persons, N, 2].

    Raises ValueError on different shapes, no images, values that are not finite, or values that look like degrees.
    """
    truth, predicted = _angles(truth, "truth"), _angles(predicted, "predictions")
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth of shape {truth.shape} and predictions of shape {predicted.shape} found; the same images in the "
            "same order expected on both sides; predict every image of the truth file"
        )
    errors = angular_error_deg(truth, predicted)
    right = 100.0 * (errors <= WITHIN_DEG)
    several = errors.ndim == 2 and len(errors) > 1
    low, high = mean_interval(errors.mean(axis=1) if several else errors.ravel())
    within_low, within_high = mean_interval(right.mean(axis=1) if several else right.ravel())
    return GazeReport(
        mean_error_deg=float(errors.mean()),
        low=low,
        high=high,
        median_error_deg=float(np.median(errors)),
        within_7_deg=float(right.mean()),
        within_7_low=within_low,
        within_7_high=within_high,
        n=errors.size,
        persons=len(errors) if errors.ndim == 2 else 1,
        errors_deg=errors,
    )


def _angles(array: Floats, name: str) -> Floats:
    array = np.asarray(array)
    if array.ndim not in (2, 3) or array.shape[-1] != 2 or array.size == 0:
        raise ValueError(f"{name} of shape {array.shape} found; [N, 2] or [persons, N, 2] pitch and yaw expected")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} of type {array.dtype} found; floating point radians expected")
    bad = ~np.isfinite(array).all(axis=-1)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{int(bad.sum())} of {bad.size} {name} are not finite, the first at {first}; correct them")
    if np.abs(array[..., 0]).max() > np.pi / 2 + 1e-6 or np.abs(array[..., 1]).max() > np.pi + 1e-6:
        raise ValueError(
            f"{name} up to {np.abs(array).max():.1f} found; radians expected, pitch within pi/2 and yaw within pi; "
            "convert degrees with numpy.deg2rad"
        )
    return array


def evaluate_gaze_files(truth: Path | str, predicted: Path | str) -> GazeReport:
    """Compare `pitch_yaw` of the truth file with `predicted` of the predictions' file (both .npz, may be one file).

    A predictions' file without `predicted` may hold its angles as `pitch_yaw`. Rows are matched by position; where both
    files name their images (`files`, as `simgan gaze predict` writes), by name, and further predictions are left out.
    Raises DataError that names the file.
    """
    truth, predicted = Path(truth), Path(predicted)
    true_angles = _array(truth, ("pitch_yaw",))
    names = ("predicted",) if truth.resolve() == predicted.resolve() else ("predicted", "pitch_yaw")
    angles = _in_order_of(truth, predicted, _array(predicted, names))
    try:
        return evaluate_gaze(true_angles, angles)
    except ValueError as error:
        raise ValueError(f"{truth} and {predicted}: {error}") from error


def _in_order_of(truth: Path, predicted: Path, angles: Floats) -> Floats:
    """The predictions in the order of the truth's images, if both files say which image each row is of."""
    names = [read_arrays(path, ("files", "pitch_yaw", "predicted"), REMEDY).get("files") for path in (truth, predicted)]
    if names[0] is None or names[1] is None or np.array_equal(names[0], names[1]):
        return angles
    place = {str(name): row for row, name in enumerate(names[1])}
    missing = [str(name) for name in names[0] if str(name) not in place]
    if missing or len(place) != len(names[1]) or len(angles) != len(names[1]):
        found = f"{len(missing)} of {len(names[0])} images without a prediction, or one with several"
        example = f", the first {missing[0]}" if missing else ""
        raise DataError(predicted, found=found + example, expected=f"the images of {truth}", remedy="predict those")
    return angles[[place[str(name)] for name in names[0]]]


def _array(path: Path, names: tuple[str, ...]) -> Floats:
    arrays = read_arrays(path, names, REMEDY)
    return next(arrays[name] for name in names if name in arrays)
