"""Hand pose errors (section 3.2, 'Hand pose estimation from depth images'): mm in space, percentages within a distance.

Joints are `uvd` [N, J, 3]: pixel u, v of the camera's image and depth in mm. The error of a joint is its distance in
space, in mm, as published results on NYU report it; PCK ('percentage of correct keypoints') here is the percentage of
joints within d mm. The paper's table is in pixels of the 224 x 224 crop: `simgan_core.evaluation.hand_comparison`.

Frames of a video resemble their neighbours, so intervals resample blocks of consecutive frames, not frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.datasets.npz import read_arrays
from simgan_core.evaluation.statistics import mean_interval
from simgan_core.hand_crop import NYU_CAMERA, Intrinsics, uvd_to_xyz

Floats = NDArray[np.floating[Any]]
FRAMES_WITHIN_MM = (10, 20, 30, 40, 50, 60, 70, 80)
"""Distances for the percentage of frames whose *worst* joint lies within them."""
PCK_UP_TO_MM = 80.0
BLOCK = 100
"""Consecutive frames that stay together in a resample: over 100 frames of NYU's test set the correlation of published
methods' errors falls from 0.95 to below 0.25, and the interval is three times as wide as that of single frames."""


@dataclass(frozen=True)
class HandReport:
    """Result of one set of predictions: mm and percent, with the 95 % interval of the mean."""

    mean_error_mm: float
    low: float
    high: float
    median_error_mm: float
    max_error_mm: float  # mean over frames of the worst joint
    pck_area_percent: float  # of the PCK curve from 0 to 80 mm; 100 would be no error at all
    frames: int
    joints: int
    block: int
    errors_mm: Floats  # [N, J]

    def frames_within(self, distance_mm: float) -> float:
        """Percentage of frames with all joints within that distance."""
        return float(100.0 * (self.errors_mm.max(axis=1) <= distance_mm).mean())

    def pck(self, distances_mm: Sequence[float]) -> Floats:
        """Percentage of joints within each distance."""
        return pck_curve(self.errors_mm, distances_mm)

    def per_joint_mm(self) -> Floats:
        """Mean error of each joint, [J]."""
        return np.asarray(self.errors_mm.mean(axis=0))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single errors, as plain JSON; None where there is no interval."""
        hidden = ("errors_mm",)
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        values = {name: None if value != value else value for name, value in values.items()}
        values |= {f"frames_within_{d}_mm": self.frames_within(d) for d in FRAMES_WITHIN_MM}
        distances = list(range(0, int(PCK_UP_TO_MM) + 1, 5))
        values["pck_distances_mm"] = distances
        values["pck_percent"] = self.pck(distances).tolist()
        values["per_joint_error_mm"] = self.per_joint_mm().tolist()
        return values


def pck_curve(errors: Floats, distances: Sequence[float]) -> Floats:
    """Percentage of all errors (of any shape) that are at most each distance."""
    ordered = np.sort(np.asarray(errors, dtype=np.float64).ravel())
    return 100.0 * np.searchsorted(ordered, np.asarray(distances, np.float64), side="right") / len(ordered)


def pck_area(errors: Floats, up_to: float) -> float:
    """Exact area under the PCK curve from 0 to `up_to`, in percent of the area of a perfect result."""
    return float(100.0 * np.clip(1.0 - np.asarray(errors, dtype=np.float64) / up_to, 0.0, None).mean())


def evaluate_hand(truth: Floats, predicted: Floats, camera: Intrinsics = NYU_CAMERA, block: int = BLOCK) -> HandReport:
    """Compare joints `uvd` [N, J, 3], pixels and mm, of the same frames in the same order.

    `block` consecutive frames are resampled together; 1 where frames have nothing to do with one another. Raises
    ValueError on different shapes, no frames, values that are not finite, or depths that are not in mm.
    """
    if not all(np.isfinite([camera.fx, camera.fy, camera.cx, camera.cy])) or min(camera.fx, camera.fy) <= 0:
        raise ValueError(f"{camera} found; finite numbers and positive focal lengths expected")
    if block < 1:
        raise ValueError(f"block {block} found; 1 or more consecutive frames expected")
    truth, predicted = _joints(truth, "truth"), _joints(predicted, "predictions")
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth of shape {truth.shape} and predictions of shape {predicted.shape} found; the same frames and "
            "joints in the same order expected on both sides; predict every frame of the truth file"
        )
    points = [uvd_to_xyz(torch.from_numpy(joints), camera) for joints in (truth, predicted)]
    errors = torch.linalg.norm(points[0] - points[1], dim=-1).numpy()
    low, high = mean_interval(block_means(errors.mean(axis=1), block))
    return HandReport(
        mean_error_mm=float(errors.mean()),
        low=low,
        high=high,
        median_error_mm=float(np.median(errors)),
        max_error_mm=float(errors.max(axis=1).mean()),
        pck_area_percent=pck_area(errors, PCK_UP_TO_MM),
        frames=len(errors),
        joints=errors.shape[1],
        block=block,
        errors_mm=errors,
    )


def block_means(of_frame: Floats, block: int) -> Floats:
    """Means of `block` consecutive values at a time; the blocks' lengths differ by one at most, so they weigh alike."""
    count = max(1, round(len(of_frame) / block))
    return np.array([part.mean() for part in np.array_split(np.asarray(of_frame, np.float64), count)])


def _joints(array: Floats, name: str) -> Floats:
    array = np.asarray(array)
    if array.ndim != 3 or array.shape[-1] != 3 or array.size == 0:
        raise ValueError(f"{name} of shape {array.shape} found; [frames, joints, 3] expected, the last axis u, v, d")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ValueError(f"{name} of type {array.dtype} found; numbers expected: pixels, pixels, mm")
    array = array.astype(np.float64)
    bad = ~np.isfinite(array).all(axis=-1)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{int(bad.sum())} of {bad.size} joints of the {name} are not finite, the first at (frame, joint) {first}; "
            "finite u, v, d expected; predict every joint, or leave those frames out on both sides"
        )
    depth = array[..., 2]
    if depth.min() <= 0 or np.median(depth) < 20:
        raise ValueError(
            f"{name} with depths from {depth.min():.4g} to {depth.max():.4g} found; positive mm expected, some "
            "hundred; multiply metres by 1,000, and give u, v, d, not x, y, z"
        )
    return array


def evaluate_hand_files(
    truth: Path | str, predicted: Path | str, camera: Intrinsics = NYU_CAMERA, block: int = BLOCK
) -> HandReport:
    """Compare `uvd` of the truth file with `uvd` of the predictions' file (.npz). Errors name the file.

    Where the predictions' file also holds `predicted`, that array is taken; so both may lie in one file.
    """
    truth, predicted = Path(truth), Path(predicted)
    same = truth.resolve() == predicted.resolve()
    true_joints = _array(truth, ("uvd",))
    joints = _array(predicted, ("predicted",) if same else ("predicted", "uvd"))
    try:
        return evaluate_hand(true_joints, joints, camera, block)
    except ValueError as error:
        raise ValueError(f"{truth} and {predicted}: {error}") from error


def _array(path: Path, names: tuple[str, ...]) -> Floats:
    remedy = "save one with numpy.savez(file, uvd=…), [frames, joints, 3]: pixel u, pixel v, depth in mm"
    arrays = read_arrays(path, names, remedy)
    return next(arrays[name] for name in names if name in arrays)
