"""Procedural eye assets: everything `EyeSimulator` needs, made from a seed, without any file.

Two variants. 'source' takes the place of the simulator (UnityEyes in the paper, section 3.1); 'target' is the embedded
stand-in for a real data set: other people, other shape statistics, other irises, other rooms. It is never called real.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.environments import room_environments
from simgan_core.simulators.procedural_iris import IRIS_COLOURS, PROCEDURAL_EYEBALL, eyeball_texture, lash_textures
from simgan_core.simulators.procedural_shape import (
    COLUMNS,
    LID_RINGS,
    OUTER_COLUMN,
    PATTERN_HALF_MM,
    SOURCE_SPREAD,
    EyeShape,
    control_vertices,
    pattern,
    shape_components,
    subdivision,
)
from simgan_core.simulators.procedural_skin import sample_traits, skin_textures

Variant = Literal["source", "target"]

_LID_STRENGTH = (1.0, 1.0, 1.0, 0.8, 0.4, 0.2)
_VARIANT_SEED = {"source": 0, "target": 7919}
_NAMES = {"source": "procedural", "target": "procedural-target"}
# Melanin of the identities (about 0.1 very light, 1.6 very dark) and shares of iris colours.
_TONES = {"source": np.linspace(0.10, 1.45, 12), "target": np.linspace(0.18, 1.05, 10)}
_IRISES = {
    "source": {"dark brown": 0.3, "brown": 0.3, "light brown": 0.1, "hazel": 0.1, "green": 0.1, "blue": 0.1},
    "target": {"dark brown": 0.4, "brown": 0.3, "hazel": 0.1, "dark blue": 0.1, "grey": 0.1},
}
_TARGET_SHAPE = EyeShape(
    width=28.8, upper_opening=4.5, lower_opening=4.0, tilt_deg=4.8, upper_peak=0.45, lower_peak=0.6, crease=3.9,
    hood=0.9, fold_bulge=1.3, brow_height=19.5, brow_forward=19.6, nose_forward=22.8, cheek_forward=13.4, bag=0.8,
)  # fmt: skip


@lru_cache(maxsize=4)
def procedural_assets(seed: int = 0, variant: Variant = "source", texture: int = 256) -> EyeAssets:
    """Make procedural assets; the same arguments give the same assets (and the same cached object: do not write to it).

    Args:
        seed: people, irises, lashes and rooms are drawn from it; shapes and layout do not depend on it.
        variant: 'source' (the simulator) or 'target' (the stand-in target domain); their people are disjoint.
        texture: side of the skin and eyeball textures in texels; 256 serves 36x60 images, 1024 serves 600x800.

    Raises:
        ValueError: unknown variant, or a texture of fewer than 64 texels.
    """
    if variant not in _NAMES:
        raise ValueError(f"variant {variant!r} found; 'source' or 'target' expected")
    if texture < 64:
        raise ValueError(f"texture of {texture} texels found; at least 64 expected, 256 is usual")
    shape = EyeShape() if variant == "source" else _TARGET_SHAPE
    rng = np.random.default_rng([seed, _VARIANT_SEED[variant]])
    skin, look_down, displacement = _skins(rng, variant, shape, texture)
    iris, probability = _irises(rng, variant, texture)
    matrix, triangles = subdivision()
    uv = 0.5 + matrix @ pattern(shape) / (2.0 * PATTERN_HALF_MM)
    return EyeAssets(
        name=_NAMES[variant],
        mean=torch.from_numpy(control_vertices(shape)).float(),
        components=torch.from_numpy(shape_components(shape, SOURCE_SPREAD)).float(),
        subdivision=torch.from_numpy(matrix).float(),
        triangles=torch.from_numpy(triangles),
        corner_uv=torch.from_numpy(uv[triangles]).float().clamp(0.0, 1.0),
        lid_loops=torch.arange(LID_RINGS * COLUMNS).reshape(LID_RINGS, COLUMNS),
        lid_strength=torch.tensor(_LID_STRENGTH),
        inner_corner=0,
        outer_corner=OUTER_COLUMN,
        skin=skin,
        skin_look_down=look_down,
        displacement=displacement,
        iris=iris,
        iris_probability=probability,
        lashes=lash_textures(rng, 4),
        eyeball=PROCEDURAL_EYEBALL,
        environments=room_environments(24, seed=int(rng.integers(2**31))),
    )


def _skins(rng: np.random.Generator, variant: Variant, shape: EyeShape, texture: int) -> tuple[Tensor, Tensor, Tensor]:
    """Skins of all identities, light to dark: colour, look-down colour [S, T, T, 3] and displacement [S, T, T]."""
    people = []
    for melanin, person in zip(_TONES[variant], rng.spawn(len(_TONES[variant])), strict=True):
        traits = sample_traits(person, float(melanin * person.uniform(0.85, 1.15)))
        people.append(skin_textures(person, traits, shape, texture))
    colour, down, displacement = (torch.from_numpy(np.stack(kind)) for kind in zip(*people, strict=True))
    return colour, down, displacement


def _irises(rng: np.random.Generator, variant: Variant, texture: int) -> tuple[Tensor, Tensor]:
    """Eyeballs [I, t, t, 3], two of each colour, and their probabilities [I]."""
    shares = _IRISES[variant]
    assert set(shares) <= set(IRIS_COLOURS)
    geometry = PROCEDURAL_EYEBALL
    names = [name for name in shares for _ in range(2)]
    draws = zip(names, rng.spawn(len(names)), strict=True)
    textures = [eyeball_texture(draw, name, texture, geometry) for name, draw in draws]
    probability = torch.tensor([shares[name] / 2.0 for name in names])
    return torch.from_numpy(np.stack(textures)), probability / probability.sum()
