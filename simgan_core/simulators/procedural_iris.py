"""Procedural eyeballs and lashes: iris fibres, limbus, veined sclera; strips of tapering hairs.

Layout of an eyeball texture, as the renderer expects it: centre = optical axis, coordinate = 0.5 + texture_per_mm * mm,
pupil of 2.4 mm radius painted black (the renderer scales the iris about it), limbus at 5.6 mm.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from simgan_core.simulators.assets import EyeballGeometry, LashAssets
from simgan_core.simulators.procedural_noise import Array, draw_hairs, grid_mm, value_noise
from simgan_core.simulators.procedural_skin import encode_srgb

PUPIL_MM = 2.4
_EDGE_MM = 0.25  # over which the pupil's edge fades into the iris
PROCEDURAL_EYEBALL = EyeballGeometry(pupil_radius_mm=PUPIL_MM + _EDGE_MM / 2)
"""UnityEyes' eyeball with the pupil that is painted here: its radius is where the edge is half way."""
_POLAR = 512  # samples around, and from the centre to the limbus
# Linear reflectance of the stroma near the limbus and around the pupil (the collarette's zone).
IRIS_COLOURS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "dark brown": ((0.035, 0.020, 0.012), (0.050, 0.028, 0.015)),
    "brown": ((0.075, 0.040, 0.020), (0.110, 0.055, 0.024)),
    "light brown": ((0.130, 0.075, 0.032), (0.180, 0.095, 0.035)),
    "hazel": ((0.120, 0.110, 0.050), (0.170, 0.090, 0.030)),
    "green": ((0.110, 0.140, 0.080), (0.170, 0.140, 0.055)),
    "grey": ((0.180, 0.200, 0.210), (0.260, 0.250, 0.210)),
    "blue": ((0.110, 0.170, 0.240), (0.210, 0.250, 0.270)),
    "dark blue": ((0.060, 0.095, 0.150), (0.120, 0.150, 0.180)),
}


def eyeball_texture(rng: np.random.Generator, colour: str, pixels: int, geometry: EyeballGeometry) -> NDArray[np.uint8]:
    """One eyeball [t, t, 3], sRGB uint8; `colour` is a key of `IRIS_COLOURS`. Raises KeyError for another name."""
    side_mm = 1.0 / geometry.texture_per_mm
    x, y = grid_mm(pixels, side_mm)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    outer, inner = (np.array(c) for c in IRIS_COLOURS[colour])
    stroma = _stroma(rng, radius, angle, geometry.limbus_radius_mm)
    collarette = 3.5 + 0.25 * _around(rng, angle, 9)
    near_pupil = 1.0 / (1.0 + np.exp((radius - collarette) / 0.16))
    iris = (outer + (inner - outer) * near_pupil[..., None]) * stroma[..., None]
    iris = iris * (1.0 - 0.75 * np.exp(-(((radius - geometry.limbus_radius_mm) / 0.55) ** 2)))[..., None]
    iris = iris * np.clip((radius - PUPIL_MM) / _EDGE_MM, 0.0, 1.0)[..., None]
    sclera = _sclera(rng, x, y, pixels, side_mm)
    edge = 1.0 / (1.0 + np.exp(-(radius - geometry.limbus_radius_mm - 0.06 * _around(rng, angle, 7)) / 0.16))
    return encode_srgb(iris + (sclera - iris) * edge[..., None])


def _around(rng: np.random.Generator, angle: Array, waves: int) -> Array:
    """Smooth periodic noise over the angle, unit variance or so."""
    result = np.zeros_like(angle)
    for wave in range(1, waves + 1):
        result += rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(result / np.sqrt(0.5 * waves))


def _stroma(rng: np.random.Generator, radius: Array, angle: Array, limbus_mm: float) -> Array:
    """Brightness of the iris' fibres and crypts: noise stretched along the radius, drawn in polar coordinates."""
    polar = np.zeros((_POLAR, _POLAR))
    wave = 2.0 * rng.standard_normal() * np.sin(np.linspace(0.0, 4.0, _POLAR))
    for around, along, weight in ((140, 3, 0.30), (60, 5, 0.22), (24, 6, 0.15)):
        coarse = rng.standard_normal((around, along))
        rows = np.linspace(0.0, around, _POLAR, endpoint=False)[:, None] + wave
        columns = np.broadcast_to(np.linspace(0.0, along - 1.0, _POLAR)[None], rows.shape)
        polar += weight * np.asarray(map_coordinates(coarse, (rows, columns), order=1, mode="grid-wrap"), np.float64)
    for _ in range(int(rng.integers(4, 11))):  # crypts: dark lozenges
        row, column = rng.uniform(0, _POLAR), rng.uniform(0.45, 0.85) * _POLAR
        off_row = (np.arange(_POLAR, dtype=np.float64)[:, None] - row + _POLAR / 2) % _POLAR - _POLAR / 2
        off_column = np.arange(_POLAR, dtype=np.float64)[None] - column
        polar -= 0.45 * np.exp(-((off_row / 9.0) ** 2) - (off_column / 28.0) ** 2)
    at_row = (angle / (2 * np.pi) % 1.0) * _POLAR
    at_column = np.clip(radius / limbus_mm, 0.0, 1.0) * (_POLAR - 1)
    fibres = map_coordinates(polar, (at_row, at_column), order=1, mode="grid-wrap")
    return np.asarray(np.clip(1.0 + 1.1 * fibres, 0.25, 2.2))


def _sclera(rng: np.random.Generator, x: Array, y: Array, pixels: int, side_mm: float) -> Array:
    """White of the eye [t, t, 3], linear: yellowish and redder away from the iris, with veins."""
    radius = np.hypot(x, y)
    white = np.array([0.84, 0.80, 0.76]) * (1.0 + 0.015 * value_noise(rng, pixels, side_mm, 2.0))[..., None]
    redness = rng.uniform(0.4, 1.3)
    absorbed = redness * 0.35 * np.clip((radius - 6.2) / 4.5, 0.0, 2.5) ** 1.3
    absorbed = absorbed + redness * 0.55 * _veins(rng, pixels, side_mm)
    return np.asarray(white * np.exp(-absorbed[..., None] * np.array([0.25, 1.0, 0.95])))


def _veins(rng: np.random.Generator, pixels: int, side_mm: float) -> Array:
    """Coverage of veins that wander from the back of the eye towards the limbus."""
    roots, tips = [], []
    for _ in range(int(rng.integers(22, 40))):
        angle, radius = rng.uniform(0, 2 * np.pi), 12.0
        heading = rng.normal(0.0, 0.15)
        stop = rng.uniform(6.6, 10.0)
        while radius > stop:
            heading = 0.8 * heading + rng.normal(0.0, 0.07)
            start = radius * np.array([np.cos(angle), np.sin(angle)])
            radius, angle = radius - 0.7, angle + heading * 0.7 / radius * 4.0
            roots.append(start)
            tips.append(radius * np.array([np.cos(angle), np.sin(angle)]))
    count = len(roots)
    bend, width = rng.normal(0.0, 0.12, count), rng.uniform(0.05, 0.16, count)
    return draw_hairs(np.array(roots), np.array(tips), bend, pixels, side_mm, width)


def lash_textures(rng: np.random.Generator, count: int) -> LashAssets:
    """`count` pairs of lash strips: dense, long and curved above; short and sparse below."""
    upper = np.stack([_lash_strip(rng, int(rng.integers(60, 105)), 0.95, 0.9) for _ in range(count)])
    lower = np.stack([_lash_strip(rng, int(rng.integers(24, 45)), 0.8, 0.35) for _ in range(count)])
    return LashAssets(upper_alpha=torch.from_numpy(upper), lower_alpha=torch.from_numpy(lower))


def _lash_strip(rng: np.random.Generator, hairs: int, longest: float, fan: float) -> NDArray[np.uint8]:
    """Coverage [64, 256] of a strip, roots at the bottom row, inner corner on the left; hairs fan out by `fan`."""
    clumps = rng.uniform(0.05, 0.98, max(hairs // 3, 1))
    place = np.where(rng.random(hairs) < 0.5, rng.choice(clumps, hairs) + rng.normal(0, 0.006, hairs), 0.0)
    place = np.where(place == 0.0, rng.uniform(0.05, 0.98, hairs), place)
    envelope = 0.45 + 0.55 * np.clip(place / 0.55, 0.0, 1.0)
    length = longest * envelope * rng.uniform(0.5, 1.0, hairs)
    lean = fan * (place - 0.45) + 0.13 * fan * rng.standard_normal(hairs)
    # Drawn on a square of side 1 of which the strip is the lowest quarter, stretched four times along the lid.
    roots = np.stack((place - 0.5, np.full(hairs, 0.5)), axis=-1)
    tips = roots + np.stack((0.25 * length * lean, -0.25 * length), axis=-1)
    drawn = draw_hairs(
        roots, tips, 0.02 * fan * rng.standard_normal(hairs), 256, 1.0, rng.uniform(0.0035, 0.006, hairs)
    )
    return np.asarray(np.round(255.0 * drawn[192:]), dtype=np.uint8)
