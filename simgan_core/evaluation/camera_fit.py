"""Fit a camera (`CameraModel`: blur, motion, grain) to real images, without a label of them.

Webcam pictures are soft and grainy, each in its own way. A refiner is a function of its input: it can soften an edge,
but it cannot invent what differs from one picture to the next. Grain that a render lacks it could only paint where the
render has texture, the same whenever that render comes. So the renders bring blur and grain along, and this module
finds how much: the camera with which renders have the real images' fine detail, by mean and standard deviation over
images of four statistics. Framing, light and labels take no part. Renders are made once and photographed anew for each
camera that is tried, always with the same random numbers.

Legend: N images, D renders, C channels, H rows, W columns, four statistics. Grey levels are those of 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from simgan_core.evaluation.image_moments import Floats, moments, render_all
from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.sensor import CameraModel
from simgan_core.simulators.simulate import finish

START = CameraModel(
    # light is the simulator's matter: `EyeRanges.exposure_normal` and `falloff_*`
    exposure_stops=(0.0, 0.0),
    gradient=(0.0, 0.0),
    vignette=(0.0, 0.0),
    gamma=(1.0, 1.0),
    # where the search begins
    defocus_px=(0.3, 1.0),
    motion_px=(0.0, 0.5),
    full_well_log10=(2.3, 3.8),
    # an ordinary webcam's, not fitted: fine detail alone cannot tell them from blur and grain
    resolution=(0.7, 1.0),
    read_noise=(0.001, 0.004),
    jpeg_quality=(60.0, 95.0),
)
RENDERS = 600
EVALUATIONS = 110
FIRST_DRAW = 3_000_000  # of the stream: far from the images of any store
SPREAD_WEIGHT = 1.5
"""Of the spreads, beside 1 of the means: that photographs differ is what a refiner cannot bring."""
STEPS = np.array([0.3, 0.5, 1.0, -0.5, 1.1])
"""First moves of the search: px of defocus and of its extent, px of motion, powers of ten of the full well's ends."""
BOUNDS = ((0.05, 2.0), (0.0, 2.0), (0.0, 6.0), (1.5, 6.0), (0.0, 4.0))
"""A defocus of none has no kernel; the kernel holds 9 px; ten electrons at white are no picture, a million no grain."""
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
_HALF = 0.5  # grey levels: no logarithm of nothing


@dataclass(frozen=True)
class CameraFit:
    """The camera, and the mean square distance of the eight moments, in standard deviations of the real images.

    `distance_before` is that of renders without any camera.
    """

    camera: CameraModel
    distance_before: float
    distance_after: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: the distances, and the fitted settings (px, and log10 of electrons)."""
        distances = {"camera_distance_before": self.distance_before, "camera_distance_after": self.distance_after}
        fitted = ("defocus_px", "motion_px", "full_well_log10")
        return distances | {f"camera_{name}": list(getattr(self.camera, name)) for name in fitted}


def fine_detail(images: NDArray[np.uint8] | Tensor) -> Floats:
    """Four logarithms [N, 4] per uint8 image [N, C, H, W], its channels pooled.

    Of the median size and the standard deviation of its Laplacian, of the mean size of its slope along rows (grey
    levels all), and of the ratio of the two standard deviations, Laplacian to slope. Grain raises the ratio, an edge
    raises the deviations and leaves the median.
    """
    levels = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images).float()
    count, _, height, width = levels.shape
    laplacian = F.conv2d(levels.reshape(-1, 1, height, width), torch.tensor([[_LAPLACIAN]])).reshape(count, -1)
    slope = (levels[..., 1:] - levels[..., :-1]).flatten(1)
    sharpness, steepness = laplacian.std(1) + _HALF, slope.std(1) + _HALF
    columns = (laplacian.abs().median(1).values + _HALF, sharpness, slope.abs().mean(1) + _HALF, sharpness / steepness)
    return np.asarray(torch.stack(columns, 1).log().double().numpy())


def fit_camera(
    simulator: EyeSimulator,
    real: NDArray[np.uint8],
    *,
    start: CameraModel = START,
    equalise: bool = True,
    renders: int = RENDERS,
    evaluations: int = EVALUATIONS,
) -> CameraFit:
    """Fit defocus, motion and full well of a camera to real images [N, C, H, W], by Nelder and Mead's search.

    Args:
        simulator: with the ranges of everything else, light among them.
        real: photographs, equalised or not as `equalise` says of the renders.
        start: where the search begins; what is not fitted stays as it is there.
        equalise: whether photographed renders are histogram-equalised before they are compared.
        renders: eyes drawn once; more take time and noise out of the search.
        evaluations: of the distance, less than a second each.

    Raises:
        ValueError: fewer than two real images, images without detail or of fewer than 3 x 3 pixels.

    """
    if real.ndim != 4 or len(real) < 2 or min(real.shape[2:]) < 3:
        raise ValueError(
            f"real images of shape {real.shape} found; [N, C, H, W] with at least 2 of 3 x 3 pixels expected, better "
            "some hundred"
        )
    size = (real.shape[2], real.shape[3])
    target, unit = _target(fine_detail(real))
    indices = range(FIRST_DRAW, FIRST_DRAW + renders)
    plain = render_all(simulator, indices)

    def distance(images: Tensor) -> float:
        seen = moments(fine_detail(finish(images, size, equalise)))
        return float((((seen - target) / unit) ** 2).mean())

    def loss(values: Floats) -> float:
        return distance(_camera(values, start)(plain, 0, indices))

    first = _values(start)
    options = {"maxfev": evaluations, "initial_simplex": first + np.vstack([np.zeros(len(STEPS)), np.diag(STEPS)])}
    minimise: Any = minimize  # its stubs know every option of every method, and not this call
    best = minimise(loss, first, method="Nelder-Mead", bounds=BOUNDS, options=options).x
    return CameraFit(_camera(best, start), distance(plain), loss(best))


def _target(detail: Floats) -> tuple[Floats, Floats]:
    """Moments [8] of the real images' statistics [N, 4], and the unit [8] of a difference from each."""
    spread = detail.std(axis=0)
    if not spread.min() > 1e-6:
        raise ValueError("real images with the same fine detail throughout found; photographs that differ expected")
    return moments(detail), np.concatenate([spread, spread / SPREAD_WEIGHT])


def _values(camera: CameraModel) -> Floats:
    """What is searched [5]: least defocus and extent of defocus, most motion (px), least full well and its extent."""
    blur, well = camera.defocus_px, camera.full_well_log10
    return np.array([blur[0], blur[1] - blur[0], camera.motion_px[1], well[0], well[1] - well[0]])


def _camera(values: Floats, start: CameraModel) -> CameraModel:
    """`start` with the values [5] of `_values` in place, to three decimals; motion begins at none."""
    blur, more_blur, motion, well, more_well = (float(value) for value in values)
    return replace(
        start,
        defocus_px=(round(blur, 3), round(blur + more_blur, 3)),
        motion_px=(0.0, round(motion, 3)),
        full_well_log10=(round(well, 3), round(well + more_well, 3)),
    )
