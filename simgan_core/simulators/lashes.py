"""Lashes: two ribbons with a coverage texture, blended over the picture.

Legend: B images, R = 5 points from root to tip, J guide hairs along a lid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulators.assets import EyeAssets, LashAssets
from simgan_core.simulators.raster import rasterise
from simgan_core.simulators.ranges import EyeParameters
from simgan_core.simulators.shading import look_up

_POINTS = 5
_UPPER, _LOWER = (2, 10), (11, 18)  # columns of the lid loops that carry lashes
_LASH_ALBEDO = 0.1  # brightness left under full coverage
_UPPER_BEND, _LOWER_BEND = (-0.9, 0.5), (0.0, 1.2)  # tangent of the angle away from the opening, at root and tip


def strips(control: Tensor, assets: EyeAssets, centre: Tensor, parameters: EyeParameters) -> Tensor:
    """Vertices [B, (J_upper + J_lower) * R, 3] of both ribbons (mm, camera frame), hair by hair from root to tip.

    A hair starts outside the lid margin, leaves along the eyeball's radius and curls away from the opening.
    """
    upper = _grow(control, assets, centre, _UPPER, assets.lashes.upper_length_mm * parameters.lash_length, _UPPER_BEND)
    lower = _grow(control, assets, centre, _LOWER, assets.lashes.lower_length_mm * parameters.lash_length, _LOWER_BEND)
    return torch.cat([upper, lower], 1)


def _grow(
    control: Tensor, assets: EyeAssets, centre: Tensor, columns: tuple[int, int], length: Tensor, bend: tuple[float, float]
) -> Tensor:
    chosen = slice(*columns)
    root = torch.lerp(control[:, assets.lid_loops[0, chosen]], control[:, assets.lid_loops[1, chosen]], 0.6)
    outer = control[:, assets.lid_loops[2, chosen]]
    radial = functional.normalize(root - centre[:, None], dim=-1)
    away = functional.normalize(outer - root, dim=-1)
    points = [root]
    for step in range(1, _POINTS):
        share = (step - 1) / (_POINTS - 2)
        direction = functional.normalize(radial + (bend[0] + (bend[1] - bend[0]) * share) * away, dim=-1)
        points.append(points[-1] + direction * (length / (_POINTS - 1))[:, None, None])
    return torch.stack(points, 2).flatten(1, 2)


def _grid(hairs: int, first: int) -> list[list[int]]:
    """Triangles of one ribbon of `hairs` hairs whose vertices start at `first`."""
    triangles = []
    for hair in range(hairs - 1):
        for point in range(_POINTS - 1):
            a = first + hair * _POINTS + point
            b = a + _POINTS
            triangles += [[a, b, a + 1], [b, b + 1, a + 1]]
    return triangles


def draw(canvas: Tensor, screen: Tensor, assets: LashAssets, parameters: EyeParameters) -> None:
    """Darken the picture [B, h, w, C] in place under the ribbons, given their projected vertices [B, n, 3]."""
    height, width = canvas.shape[1:3]
    upper = _UPPER[1] - _UPPER[0]
    flat = canvas.view(-1, canvas.shape[-1])
    for textures, hairs, first in (
        (assets.upper_alpha, upper, 0),
        (assets.lower_alpha, _LOWER[1] - _LOWER[0], upper * _POINTS),
    ):
        triangles = torch.tensor(_grid(hairs, first), device=canvas.device)
        vertex = torch.arange(hairs * _POINTS, device=canvas.device)
        along = torch.div(vertex, _POINTS, rounding_mode="floor") / (hairs - 1)
        out = 1 - (vertex % _POINTS) / (_POINTS - 1)
        uv = torch.stack([along, out], -1)
        fragments = rasterise(screen, triangles, height, width, two_sided=True)
        where = fragments.interpolate_corners(uv[triangles - first])
        alpha = look_up(textures[..., None], parameters.lash[fragments.image], where, smooth=True) / 255
        alpha = (1 - (1 - alpha) ** 3) * parameters.lash_density[fragments.image, None]  # hairs lie in three layers
        flat[fragments.pixel] *= 1 - (1 - _LASH_ALBEDO) * alpha
