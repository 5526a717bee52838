"""Realism in numbers (beyond the paper's visual Turing test): how far are images from real ones, before and after R?

Three views that do not share their weaknesses: a kernel distance between the features of a gaze CNN (what matters to
the task), an energy distance between statistics of 8x8 patches (texture, sharpness, noise: no network at all), and a
discriminator trained from scratch that has never played against the refiner. Each estimate is unbiased, so that equal
distributions give about 0 (the discriminator 0.5) whatever the number of images.

Legend: N M images, F features, P patches of an image, S statistics of a patch; images uint8 [N, C, H, W].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.spatial.distance import cdist
from scipy.stats import norm

from simgan_core.evaluation.fresh_discriminator import FreshDiscriminator, fresh_discriminator
from simgan_core.evaluation.statistics import CONFIDENCE, Estimate
from simgan_core.gaze_estimator import GazeCNN
from simgan_core.images import tensor_of, to_float, to_grey

__all__ = [
    "PATCH_STATISTICS",
    "FreshDiscriminator",
    "Realism",
    "fresh_discriminator",
    "gaze_feature_kernel_distance",
    "gaze_features",
    "measure_realism",
    "patch_distance",
    "patch_statistics",
]

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

PATCH = 8  # pixels, side of a patch: a quarter of the eye's height, the size of JPEG's blocks
PATCH_STATISTICS = ("level", "contrast", "gradient_across", "gradient_down", "dct_low", "dct_middle", "dct_high")
ROUNDS = 8  # patches drawn from each image by `patch_distance`
ROUNDING = 1 / 12  # variance of rounding to whole grey levels: an energy below it says nothing


@dataclass(frozen=True)
class Realism:
    """Distances of images from real ones; `kernel_distance` is None without a gaze CNN."""

    patch_distance: Estimate
    auc: Estimate
    kernel_distance: Estimate | None = None

    def to_dict(self) -> dict[str, dict[str, float | int] | None]:
        """As plain JSON."""
        kernel = self.kernel_distance
        return {
            "patch_distance": self.patch_distance.to_dict(),
            "auc": self.auc.to_dict(),
            "kernel_distance": None if kernel is None else kernel.to_dict(),
        }


def measure_realism(
    images: UInt8, real: UInt8, *, model: GazeCNN | None = None, seed: int = 0, limit: int = 1500
) -> Realism:
    """All three distances between the first `limit` of `images` and of `real`, uint8 [N, C, H, W].

    `model` is a gaze CNN that was trained on neither (raw renders are what it should have seen).
    """
    images, real = images[:limit], real[:limit]
    return Realism(
        patch_distance=patch_distance(images, real, seed=seed),
        auc=fresh_discriminator(images, real, seed=seed).auc,
        kernel_distance=None
        if model is None
        else gaze_feature_kernel_distance(gaze_features(model, images), gaze_features(model, real)),
    )


@torch.no_grad()
def gaze_features(model: GazeCNN, images: UInt8, batch: int = 256) -> NDArray[np.float32]:
    """Penultimate layer of the gaze CNN for images uint8 [N, C, H, W]: float32 [N, F]."""
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(images), batch):
        part = tensor_of(images[start : start + batch]).to(device)
        flat = model.late(model.early(to_float(part))).flatten(1)
        found.append(model.head[:-1](flat).float().cpu().numpy())
    return np.concatenate(found)


def gaze_feature_kernel_distance(features: Floats, real: Floats) -> Estimate:
    """Unbiased MMD^2 with the kernel (x.y / F + 1)^3 between features [N, F] and [M, F], with its 95 % interval.

    The form is that of Binkowski et al. 2018; the features are a gaze CNN's and not Inception's, so the numbers compare
    with one another only. Features are scaled such that those of `real` have a mean square of 1;
    the interval takes that scale as given.
    """
    _check_pair(features, real, "features")
    scale = np.sqrt(np.mean(np.square(real, dtype=np.float64)))
    if scale == 0:
        raise ValueError("features of the real images that are all 0 found; take a gaze CNN that was trained")
    a, b = features.astype(np.float64) / scale, real.astype(np.float64) / scale
    return _unbiased(_polynomial(a, a), _polynomial(b, b), _polynomial(a, b))


def _polynomial(a: Floats, b: Floats) -> NDArray[np.float64]:
    return np.asarray((a @ b.T / a.shape[1] + 1.0) ** 3, dtype=np.float64)


def patch_statistics(images: UInt8) -> NDArray[np.float64]:
    """`PATCH_STATISTICS` of the 8x8 patches that tile the middle of each image: uint8 [N, C, H, W] -> [N, P, S].

    Level and contrast in grey levels, the others natural logarithms of energies in squared grey levels; DCT
    coefficients are low up to a diagonal of 3, middle up to 7, high above. Colour images are judged by their luma.
    """
    patches = _patches(to_grey(tensor_of(images)).numpy()[:, 0].astype(np.float64))
    coefficients = dctn(patches, axes=(-2, -1), norm="ortho") ** 2
    diagonal = np.add.outer(np.arange(PATCH), np.arange(PATCH))
    bands = [(1, 3), (4, 7), (8, 2 * PATCH)]
    energies = [
        np.square(np.diff(patches, axis=-1)).mean(axis=(-2, -1)),
        np.square(np.diff(patches, axis=-2)).mean(axis=(-2, -1)),
        *(coefficients[..., (diagonal >= low) & (diagonal <= high)].mean(axis=-1) for low, high in bands),
    ]
    levels = [patches.mean(axis=(-2, -1)), patches.std(axis=(-2, -1))]
    return np.stack([*levels, *(np.log(energy + ROUNDING) for energy in energies)], axis=-1)


def _patches(grey: Floats) -> NDArray[np.float64]:
    """[N, H, W] -> [N, P, 8, 8], the tiles centred in the image."""
    count, height, width = grey.shape
    rows, columns = height // PATCH, width // PATCH
    if min(rows, columns) < 1:
        raise ValueError(f"images of {height} x {width} found; at least {PATCH} x {PATCH} expected")
    top, left = (height - rows * PATCH) // 2, (width - columns * PATCH) // 2
    inside = grey[:, top : top + rows * PATCH, left : left + columns * PATCH]
    tiles = inside.reshape(count, rows, PATCH, columns, PATCH).swapaxes(2, 3)
    return np.asarray(tiles.reshape(count, rows * columns, PATCH, PATCH), dtype=np.float64)


def patch_distance(images: UInt8, real: UInt8, seed: int = 0) -> Estimate:
    """Energy distance 2 E|x-y| - E|x-x'| - E|y-y'| between patch statistics, in units of the real ones' sd.

    Patches of one image resemble each other, so the interval counts images: each round compares one patch of every
    image, drawn anywhere, and the rounds are averaged.
    """
    a, b = patch_statistics(images), patch_statistics(real)
    _check_pair(a[:, 0], b[:, 0], "images")
    flat = b.reshape(-1, b.shape[-1])
    mean, sd = flat.mean(axis=0), flat.std(axis=0)
    a, b = (a - mean) / np.maximum(sd, 1e-9), (b - mean) / np.maximum(sd, 1e-9)
    rng = np.random.default_rng(seed)
    within_a, within_b, between = np.zeros((len(a),) * 2), np.zeros((len(b),) * 2), np.zeros((len(a), len(b)))
    for _ in range(ROUNDS):
        x, y = (part[np.arange(len(part)), rng.integers(part.shape[1], size=len(part))] for part in (a, b))
        within_a -= cdist(x, x) / ROUNDS
        within_b -= cdist(y, y) / ROUNDS
        between -= cdist(x, y) / ROUNDS
    return _unbiased(within_a, within_b, between)


def _unbiased(within_a: Floats, within_b: Floats, between: Floats) -> Estimate:
    """E k(x,x') + E k(y,y') - 2 E k(x,y) without an image's product with itself; interval by a jackknife over images.

    A bootstrap would draw images twice and so bring those products back; leaving one image out at a time does not, and
    needs only sums of rows. Where the distributions are equal the jackknife's interval is too wide rather than narrow.
    """
    n, m = between.shape
    rows_a, rows_b = (within.sum(axis=1) - np.diagonal(within) for within in (within_a, within_b))
    to_b, to_a = between.sum(axis=1), between.sum(axis=0)
    sums = float(rows_a.sum()), float(rows_b.sum()), float(to_b.sum())

    def distance(a: Any, b: Any, ab: Any, n: int, m: int) -> Any:
        return a / (n * (n - 1)) + b / (m * (m - 1)) - 2 * ab / (n * m)

    value = distance(*sums, n, m)
    without_a = distance(sums[0] - 2 * rows_a, sums[1], sums[2] - to_b, n - 1, m)
    without_b = distance(sums[0], sums[1] - 2 * rows_b, sums[2] - to_a, n, m - 1)
    variance = sum((k - 1) ** 2 / k * np.var(left_out, ddof=1) for k, left_out in ((n, without_a), (m, without_b)))
    half = float(norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance))
    return Estimate(float(value), float(value) - half, float(value) + half, seeds=1, n=min(n, m))


def _check_pair(a: Floats, b: Floats, name: str) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 3:
        raise ValueError(
            f"{name} of shapes {a.shape} and {b.shape} found; at least 3 of each kind expected, with equal columns"
        )
