"""Seeded noise and strokes on a square texture, in millimetres, so that a texture looks alike at every resolution."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
_SHIFT = 4  # sub-pixel bits of OpenCV's line drawing


def value_noise(rng: np.random.Generator, pixels: int, side_mm: float, cell_mm: float) -> Array:
    """Smooth noise [pixels, pixels] of zero mean and unit variance, whose blobs are about `cell_mm` wide."""
    cells = max(int(round(side_mm / cell_mm)), 2)
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    if cells > pixels:
        fine = cv2.resize(coarse, (pixels, pixels), interpolation=cv2.INTER_AREA)
    else:
        fine = cv2.resize(coarse, (pixels, pixels), interpolation=cv2.INTER_CUBIC)
    noise = fine.astype(np.float64)
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-9))


def grid_mm(pixels: int, side_mm: float) -> tuple[Array, Array]:
    """Coordinates x (right) and y (down) of the texels' centres, mm from the centre of the texture."""
    axis = ((np.arange(pixels) + 0.5) / pixels - 0.5) * side_mm
    x, y = np.meshgrid(axis, axis)
    return x, y


def distance_to_curve(points: Array, x: Array, y: Array, reach_mm: float) -> tuple[Array, Array]:
    """Distance (mm) of each texel from a polyline [n, 2], and how far along it (0 to 1) the nearest point lies.

    Beyond `reach_mm` the distance is infinite and the place along it 0.5; a small reach is quick.
    """
    dense = np.linspace(0.0, len(points) - 1.0, 400)
    curve = np.stack([np.interp(dense, np.arange(len(points)), points[:, k]) for k in (0, 1)], axis=-1)
    distance, along = np.full(x.shape, np.inf), np.full(x.shape, 0.5)
    low, high = curve.min(axis=0) - reach_mm, curve.max(axis=0) + reach_mm
    near = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    found, nearest = cKDTree(curve).query(np.stack((x[near], y[near]), axis=-1), distance_upper_bound=reach_mm)
    distance[near] = found
    along[near] = np.where(np.isfinite(found), nearest / 399.0, 0.5)
    return distance, along


def draw_hairs(roots: Array, tips: Array, bend: Array, pixels: int, side_mm: float, width_mm: Array) -> Array:
    """Coverage [pixels, pixels] in [0, 1] of tapering curved hairs: roots, tips [n, 2] mm, bend [n] mm sideways."""
    scale = 4 if pixels < 512 else 2
    canvas = np.zeros((pixels * scale, pixels * scale), dtype=np.uint8)
    per_mm = canvas.shape[0] / side_mm
    t = np.linspace(0.0, 1.0, 7)[None, :, None]
    along = tips - roots
    normal = np.stack((-along[:, 1], along[:, 0]), axis=-1) / np.maximum(np.linalg.norm(along, axis=-1), 1e-9)[:, None]
    middle = 0.5 * (roots + tips) + normal * bend[:, None]
    curves = (1 - t) ** 2 * roots[:, None] + 2 * t * (1 - t) * middle[:, None] + t**2 * tips[:, None]
    places = np.round(((curves + 0.5 * side_mm) * per_mm - 0.5) * (1 << _SHIFT)).astype(np.int32)
    for hair, width in zip(places, width_mm * per_mm, strict=True):
        for part in range(6):  # thinner towards the tip
            thickness = max(int(round(width * (1.0 - part / 7.0))), 1)
            strength = min(255, int(255 * min(1.0, 0.35 + width * (1.0 - part / 7.0))))
            cv2.line(canvas, hair[part].tolist(), hair[part + 1].tolist(), strength, thickness, cv2.LINE_AA, _SHIFT)
    small = cv2.resize(canvas, (pixels, pixels), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float64) / 255.0
