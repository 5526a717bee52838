"""How jagged and torn the silhouettes of depth hands are: the stand-in target against recorded hands.

Measures fixed before any comparison, all free of the depth's scale, because published crops are 8-bit pictures without
one. On silhouettes of 128 x 128 pixels of the cube, per pixel of contour and for disks of radius 1, 2 and 3 pixels:
*notches* is the area that a morphological closing fills (dropouts, bites out of the edge), *spikes* the area that an
opening takes away (isolated pixels, teeth). Over the radii they are the spectrum of the edge's jitter: rendered hands
have little at every radius, a structured-light camera leaves its mark at 1 to 3 pixels. `noise_mm`, for depth in mm
only, is the mean size of the second difference inside the hand, away from edges. (It was the median, which is 0 for the
recorded frame: a camera that delivers whole mm in steps gives 0 more often than not, and then nothing is compared.)

N images, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from simgan_core.evaluation.statistics import Estimate

RADII = (1, 2, 3)
SIDE = 128
_INSIDE = 5  # pixels from the silhouette's edge that count as inside


@dataclass(frozen=True)
class EdgeProfile:
    """Means over images; `notches` and `spikes` in pixels per pixel of contour, one number per radius."""

    notches: tuple[float, ...]
    spikes: tuple[float, ...]
    images: int

    def distance(self, other: EdgeProfile) -> float:
        """Mean absolute difference of the two spectra."""
        pairs = zip(self.notches + self.spikes, other.notches + other.spikes, strict=True)
        return float(np.mean([abs(a - b) for a, b in pairs]))


def edge_profile(masks: NDArray[np.bool_]) -> EdgeProfile:
    """The profile of silhouettes [N, H, W], square or nearly so; brought to 128 pixels first.

    Raises ValueError where no image holds a hand.
    """
    return mean_profile(edge_rows(masks))


def edge_rows(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Notches and spikes of every silhouette that holds a hand, [N, 6]: what `edge_profile` averages."""
    if masks.ndim != 3 or not masks.any():
        raise ValueError(f"masks of shape {masks.shape} found; [N, H, W] with some hand in them expected")
    return np.asarray([_one(mask) for mask in masks if mask.any()])


def mean_profile(rows: NDArray[np.float64]) -> EdgeProfile:
    """The profile of rows of `edge_rows`."""
    mean = np.mean(rows, axis=0)
    return EdgeProfile(tuple(mean[: len(RADII)].tolist()), tuple(mean[len(RADII) :].tolist()), len(rows))


def distance_estimate(rows: NDArray[np.float64], recorded: NDArray[np.float64], draws: int = 1000) -> Estimate:
    """Distance of two profiles with its 95 % interval; images of both sides are resampled, `n` counts the recorded."""
    rng = np.random.default_rng(0)

    def distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
        return mean_profile(ours).distance(mean_profile(theirs))

    drawn = [
        distance(*(part[rng.integers(len(part), size=len(part))] for part in (rows, recorded))) for _ in range(draws)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(distance(rows, recorded), float(low), float(high), 1, len(recorded))


def _one(mask: NDArray[np.bool_]) -> list[float]:
    small = cv2.resize(mask.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    padded = cv2.copyMakeBorder(
        small, 8, 8, 8, 8, cv2.BORDER_REPLICATE
    )  # a hand that leaves the crop has no edge there
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    smooth = cv2.medianBlur(padded, 7)  # the contour's length must not grow with its own jitter
    contour = max(int((smooth - cv2.erode(smooth, cross)).sum()), 1)
    filled, cut = [], []
    for radius in RADII:
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disk = (x * x + y * y <= radius * radius + radius * 0.5).astype(np.uint8)
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disk)
        opened = cv2.morphologyEx(padded, cv2.MORPH_OPEN, disk)
        filled.append(float((closed - padded).sum()) / contour)
        cut.append(float((padded - opened).sum()) / contour)
    return filled + cut


def noise_mm(depth: NDArray[np.floating]) -> float:
    """Mean of |left - 2 x + right| / 2 in mm, inside the hands of [N, H, W] in mm (0 = background)."""
    hand = (depth > 0).astype(np.uint8)
    kernel = np.ones((2 * _INSIDE + 1, 2 * _INSIDE + 1), np.uint8)
    inside = np.stack([cv2.erode(mask, kernel) for mask in hand]).astype(bool)[:, :, 1:-1]
    second = np.abs(depth[:, :, :-2] - 2 * depth[:, :, 1:-1] + depth[:, :, 2:]) / 2
    calm = inside & (second < 10)  # folds inside the hand are not noise
    return float(second[calm].mean()) if calm.any() else float("nan")
