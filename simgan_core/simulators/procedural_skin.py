"""Procedural skin around the eye: colour, look-down colour and displacement textures of made-up identities.

Colour is Beer and Lambert's law for two chromophores, melanin and haemoglobin (after Tsumura et al. 1999): every mark,
from a freckle to a tired lower lid, adds or removes one of the two, so that tones stay those of skin.

Shape legend: T texels along a side; textures are [T, T, 3] sRGB and [T, T] grey (128 = level, more = raised).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simgan_core.simulators.procedural_noise import Array, distance_to_curve, draw_hairs, grid_mm, value_noise
from simgan_core.simulators.procedural_shape import PATTERN_HALF_MM, EyeShape, lid_curves

_SIDE_MM = 2.0 * PATTERN_HALF_MM
_BLOODLESS = np.array([0.93, 0.86, 0.79])  # linear reflectance of skin without either pigment
_MELANIN = np.array([0.62, 1.05, 1.70])  # absorbance of one unit
_HAEMOGLOBIN = np.array([0.14, 0.62, 0.55])
_LID_REACH_MM = 18.0
_HAIR = np.array([1.25, 1.35, 1.45])


@dataclass(frozen=True)
class SkinTraits:
    """What tells one made-up person's skin from another's; amounts without unit are about 0 (none) to 1 (strong)."""

    melanin: float
    haemoglobin: float
    freckles: float
    lower_lid_shadow: float
    upper_lid_shadow: float
    wrinkles: float
    pores: float
    brow_density: float
    brow_width_mm: float
    brow_height_mm: float
    brow_melanin: float
    crease_mm: float
    oil: float  # coarse light and dark patches


def sample_traits(rng: np.random.Generator, melanin: float) -> SkinTraits:
    """Draw one person's traits; `melanin` is given by the caller so that a set of people covers light to dark."""
    return SkinTraits(
        melanin=melanin,
        haemoglobin=float(rng.uniform(0.35, 0.75)),
        freckles=float(rng.choice([0.0, 0.15, 0.4, 1.0], p=[0.4, 0.3, 0.2, 0.1])),
        lower_lid_shadow=float(rng.uniform(0.1, 0.8)),
        upper_lid_shadow=float(rng.uniform(0.1, 0.7)),
        wrinkles=float(rng.beta(1.6, 2.2)),
        pores=float(rng.uniform(0.3, 1.0)),
        brow_density=float(rng.uniform(0.35, 1.0)),
        brow_width_mm=float(rng.uniform(5.0, 9.5)),
        brow_height_mm=float(rng.uniform(18.0, 22.5)),
        brow_melanin=float(rng.uniform(0.7, 1.5)),
        crease_mm=float(rng.uniform(0.85, 1.2)),
        oil=float(rng.uniform(0.3, 1.0)),
    )


@dataclass(frozen=True)
class _Places:
    """Where a texel lies on the face: fields [T, T] in mm."""

    x: Array
    y: Array
    upper: Array  # distance from the upper lid margin
    lower: Array
    along: Array  # 0 at the inner corner, 1 at the outer
    above: Array  # 1 above the line of the corners, 0 below, smooth
    crease: Array  # distance from the crease
    corner: Array  # distance from the inner corner
    inside: Array  # 1 within the outline of the opening: lid margins and caruncle, which get little light


def skin_textures(
    rng: np.random.Generator, traits: SkinTraits, shape: EyeShape, pixels: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Colour [T, T, 3], colour when the eye looks down [T, T, 3] and displacement [T, T] of one person, uint8."""
    places = _places(shape, traits, pixels)
    melanin, blood = _pigments(rng, traits, places, pixels)
    wrinkles = _wrinkles(rng, traits, places)
    brow = _brow(rng, traits, pixels)
    texture = traits.pores * _pores(rng, pixels)
    crease = np.exp(-((places.crease / 0.6) ** 2)) * _lid_window(places)
    shade = 0.35 * wrinkles + 0.05 * np.maximum(-texture, 0.0) + _soft_shadows(traits, places)
    colour = _colour(melanin, blood, shade + 1.0 * crease, brow * traits.brow_melanin)
    down = _colour(melanin, blood + 0.06 * crease, shade + 0.45 * crease, brow * traits.brow_melanin)
    height = 2.2 * texture - 7.0 * wrinkles - 9.0 * crease + 4.0 * brow + 1.5 * value_noise(rng, pixels, _SIDE_MM, 2.5)
    displacement = np.clip(np.round(128.0 + height), 0, 255).astype(np.uint8)
    return colour, down, displacement


def _places(shape: EyeShape, traits: SkinTraits, pixels: int) -> _Places:
    x, y = grid_mm(pixels, _SIDE_MM)
    upper, lower = lid_curves(shape, np.linspace(0.0, 1.0, 60))
    to_upper, along_upper = distance_to_curve(upper, x, y, _LID_REACH_MM)
    to_lower, along_lower = distance_to_curve(lower, x, y, _LID_REACH_MM)
    share = np.linspace(0.0, 1.0, 60)
    lift = traits.crease_mm * shape.crease * np.sin(np.pi * share) ** 0.5 + 2.2 * share
    crease = upper - np.stack((np.zeros(60), lift), axis=-1)
    middle = np.interp(x, upper[:, 0], 0.5 * (upper[:, 1] + lower[:, 1]))
    above = 0.5 - 0.5 * np.tanh((y - middle) / 1.5)
    return _Places(
        x=x,
        y=y,
        upper=to_upper,
        lower=to_lower,
        along=np.where(above > 0.5, along_upper, along_lower),
        above=above,
        crease=distance_to_curve(crease, x, y, 9.0)[0],
        corner=np.hypot(x - upper[0, 0], y - upper[0, 1]),
        inside=_inside(x, y, upper, lower),
    )


def _inside(x: Array, y: Array, upper: Array, lower: Array) -> Array:
    """1 between two curves [n, 2] that run over the same x, 0 outside, with a soft edge."""
    top, bottom = (np.interp(x, curve[:, 0], curve[:, 1], left=np.inf, right=-np.inf) for curve in (upper, lower))
    depth = np.nan_to_num(np.minimum(y - top, bottom - y), nan=-9.0, posinf=9.0, neginf=-9.0)
    return np.asarray(0.5 + 0.5 * np.tanh(depth / 0.25))


def _lid_window(places: _Places) -> Array:
    """1 along the lids, fading out at and beyond the corners."""
    return np.asarray(np.clip(6.0 * places.along, 0, 1) * np.clip(10.0 * (1.0 - places.along), 0.1, 1))


def _pigments(rng: np.random.Generator, traits: SkinTraits, places: _Places, pixels: int) -> tuple[Array, Array]:
    """Melanin and haemoglobin [T, T] everywhere on the face."""

    def noise(cell_mm: float) -> Array:
        return value_noise(rng, pixels, _SIDE_MM, cell_mm)

    melanin = traits.melanin * (1.0 + traits.oil * (0.03 * noise(14.0) + 0.02 * noise(5.0)) + 0.02 * noise(1.6))
    blood = traits.haemoglobin * (1.0 + 0.06 * noise(12.0) + 0.05 * noise(4.0) + 0.04 * noise(1.5))
    margin = np.minimum(places.upper, places.lower)
    under = np.exp(-(((places.lower - 7.0) / 4.0) ** 2)) * (1.0 - places.above) * np.clip(1.3 - places.along, 0, 1)
    lid = np.exp(-((places.upper / 5.0) ** 2)) * places.above
    melanin = melanin + 0.22 * traits.lower_lid_shadow * under + 0.25 * traits.upper_lid_shadow * lid
    blood = blood + 0.45 * traits.lower_lid_shadow * under + 0.40 * traits.upper_lid_shadow * lid
    wet = np.exp(-((margin / 1.0) ** 2))
    blood = blood + 0.40 * wet + 0.9 * np.exp(-((places.corner / 3.6) ** 2)) * np.exp(-((margin / 1.4) ** 2))
    blood = blood + 0.35 * places.inside
    melanin = melanin * (1.0 - 0.55 * np.maximum(wet, places.inside))  # margins and caruncle carry little melanin
    melanin = melanin + _freckles(rng, traits, places)
    return np.maximum(melanin, 0.02), np.maximum(blood, 0.05)


def _freckles(rng: np.random.Generator, traits: SkinTraits, places: _Places) -> Array:
    """Freckles all over and now and then a mole, as melanin [T, T]."""
    spots = np.zeros_like(places.x)
    count = int(220 * traits.freckles)
    centres = rng.uniform(-PATTERN_HALF_MM, PATTERN_HALF_MM, (count + 2, 2))
    radii = np.concatenate((rng.uniform(0.25, 0.8, count), rng.uniform(0.6, 1.2, 2)))
    depth = np.concatenate((rng.uniform(0.05, 0.3, count), rng.uniform(0.6, 1.4, 2) * (rng.random(2) < 0.3)))
    texels = places.x.shape[0]
    for (x, y), radius, amount in zip(centres, radii, depth, strict=True):
        rows, columns = _texels_near(y, 3.0 * radius, texels), _texels_near(x, 3.0 * radius, texels)
        apart = (places.x[rows, columns] - x) ** 2 + (places.y[rows, columns] - y) ** 2
        spots[rows, columns] += amount * np.exp(-apart / radius**2)
    return spots


def _texels_near(centre_mm: float, reach_mm: float, texels: int) -> slice:
    """Texels of one axis within `reach_mm` of a place."""
    low, high = ((centre_mm + sign * reach_mm + PATTERN_HALF_MM) / _SIDE_MM * texels for sign in (-1, 1))
    return slice(max(int(low), 0), max(int(high) + 1, 0))


def _wrinkles(rng: np.random.Generator, traits: SkinTraits, places: _Places) -> Array:
    """Furrows [T, T] in [0, 1]: below the lower lid, a second fold above the crease, crow's feet at the temple."""
    result = np.zeros_like(places.x)
    corner_x, corner_y = 0.455 * 28.2, -0.5
    curves: list[tuple[Array, float, float]] = []
    t = np.linspace(0.0, 1.0, 20)
    for _ in range(int(rng.integers(1, 4))):  # lower lid
        depth, start, stop = rng.uniform(3.0, 12.0), rng.uniform(-16, -11), rng.uniform(2, 15)
        y = 2.0 + depth * np.sin(np.pi * (0.12 + 0.76 * t)) + 0.7 * depth * 0.3 * (1 - t)
        curves.append((np.stack((start + (stop - start) * t, y), -1), rng.uniform(0.25, 0.8), rng.uniform(0.3, 0.6)))
    lift = rng.uniform(10.5, 14.0)
    y = -lift * np.sin(np.pi * (0.1 + 0.8 * t)) + 1.0
    curves.append((np.stack((-13.0 + 29.0 * t, y), -1), rng.uniform(0.0, 0.6), 0.6))
    for _ in range(int(rng.integers(0, 6))):  # crow's feet
        turn, length = rng.uniform(-0.7, 0.8), rng.uniform(6.0, 14.0)
        ray = np.stack((corner_x + 3.0 + length * np.cos(turn) * t, corner_y + length * np.sin(turn) * t), -1)
        curves.append((ray, rng.uniform(0.2, 0.9), rng.uniform(0.25, 0.45)))
    for curve, strength, width in curves:
        wavy = curve + 0.25 * rng.standard_normal(curve.shape).cumsum(axis=0)
        distance, along = distance_to_curve(wavy, places.x, places.y, 3.0 * width)
        furrow = np.exp(-((distance / width) ** 2)) * np.sin(np.pi * along)
        result = np.maximum(result, traits.wrinkles * strength * furrow)
    return result


def _pores(rng: np.random.Generator, pixels: int) -> Array:
    """Fine relief of the skin [T, T], zero mean, about unit variance."""
    fine = value_noise(rng, pixels, _SIDE_MM, 0.45)
    middle = value_noise(rng, pixels, _SIDE_MM, 1.0)
    return np.asarray(0.7 * fine + 0.6 * middle)


def _soft_shadows(traits: SkinTraits, places: _Places) -> Array:
    """Absorbance [T, T] of what little light reaches: above the fold, beside the nose, at the lash roots."""
    socket = np.exp(-(((places.crease - 1.0) / 2.6) ** 2)) * places.above * _lid_window(places)
    nose = np.exp(-(((places.x + 18.0) / 3.5) ** 2) - ((places.y + 4.0) / 6.0) ** 2)
    window = _lid_window(places)
    lashes = np.exp(-(((places.upper - 0.4) / 0.6) ** 2)) * places.above * window
    below = np.exp(-(((places.lower - 0.6) / 0.5) ** 2)) * (1.0 - places.above) * window
    return np.asarray(0.20 * socket + 0.18 * nose + 1.3 * lashes + 0.45 * below + 0.5 * places.inside)


def _brow(rng: np.random.Generator, traits: SkinTraits, pixels: int) -> Array:
    """Coverage [T, T] of the eyebrow's hairs: upright at the nose, lying towards the temple."""
    count = int(420 * traits.brow_density)
    share = rng.beta(1.15, 1.35, count)
    across = rng.normal(0.0, 0.24, count).clip(-0.5, 0.5)
    width = traits.brow_width_mm * (1.0 - 0.65 * share**1.5)
    x = -21.0 + 45.0 * share
    arch = traits.brow_height_mm + 3.2 * np.sin(np.pi * (0.12 + 0.72 * share)) - 9.0 * np.maximum(share - 0.6, 0.0)
    roots = np.stack((x, -arch + width * across), axis=-1)
    turn = -1.25 + 1.15 * share**0.5 + 0.8 * across + rng.normal(0.0, 0.12, count)
    length = rng.uniform(3.0, 6.0, count) * (1.0 - 0.35 * share)
    tips = roots + length[:, None] * np.stack((np.cos(turn), np.sin(turn)), axis=-1)
    bend = rng.uniform(0.1, 0.7, count)
    hairs = draw_hairs(roots, tips, bend, pixels, _SIDE_MM, rng.uniform(0.12, 0.24, count))
    haze = draw_hairs(roots, tips, bend, pixels, _SIDE_MM, np.full(count, 0.7))
    return np.asarray(np.clip(hairs + 0.25 * haze, 0.0, 1.0))


def _colour(melanin: Array, blood: Array, shade: Array, hair: Array) -> NDArray[np.uint8]:
    """Pigments [T, T] to an sRGB texture."""
    absorbed = melanin[..., None] * _MELANIN + blood[..., None] * _HAEMOGLOBIN
    absorbed = absorbed + shade[..., None] * np.array([0.85, 1.0, 1.05]) + hair[..., None] * _HAIR
    return encode_srgb(_BLOODLESS * np.exp(-absorbed))


def encode_srgb(linear: Array) -> NDArray[np.uint8]:
    """Linear light in [0, 1] to 8-bit sRGB (IEC 61966-2-1)."""
    clipped = np.clip(linear, 0.0, 1.0)
    coded = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(255.0 * coded), dtype=np.uint8)
