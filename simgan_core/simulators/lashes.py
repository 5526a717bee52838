"""Lashes: two ribbons with a coverage texture, blended over the picture.

Legend: B images, R = 5 points from root to tip, J guide hairs along a lid.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Ribbons:
    """Topology of both ribbons and their textures side by side: the upper lid's on the left half."""

    triangles: Tensor  # [F,3] into the vertices of `strips`
    uv: Tensor  # [F,3,2]
    alpha: Tensor  # uint8 [N,h,w,1]

    @staticmethod
    def of(assets: LashAssets) -> Ribbons:
        """Prepare the ribbons of one set of assets, on its device."""
        count = min(len(assets.upper_alpha), len(assets.lower_alpha))
        alpha = torch.cat([assets.upper_alpha[:count], assets.lower_alpha[:count]], -1)
        triangles, uv, first = [], [], 0
        for lid, (low, high) in enumerate((_UPPER, _LOWER)):
            hairs = high - low
            vertex = torch.arange(hairs * _POINTS)
            along = torch.div(vertex, _POINTS, rounding_mode="floor") / (hairs - 1)
            out = 1 - (vertex % _POINTS) / (_POINTS - 1)
            uv.append(torch.stack([(lid + along) / 2, out], -1))
            triangles += _grid(hairs, first)
            first += hairs * _POINTS
        index = torch.tensor(triangles)
        device = alpha.device
        return Ribbons(index.to(device), torch.cat(uv)[index].to(device), alpha[..., None].contiguous())


def _grid(hairs: int, first: int) -> list[list[int]]:
    """Triangles of one ribbon of `hairs` hairs whose vertices start at `first`."""
    triangles = []
    for hair in range(hairs - 1):
        for point in range(_POINTS - 1):
            a = first + hair * _POINTS + point
            b = a + _POINTS
            triangles += [[a, b, a + 1], [b, b + 1, a + 1]]
    return triangles


def draw(canvas: Tensor, screen: Tensor, ribbons: Ribbons, parameters: EyeParameters) -> None:
    """Darken the picture [B, h, w, C] in place under the ribbons, given their projected vertices [B, n, 3]."""
    height, width = canvas.shape[1:3]
    fragments = rasterise(screen, ribbons.triangles, height, width, two_sided=True)
    where = fragments.interpolate_corners(ribbons.uv)
    alpha = look_up(ribbons.alpha, parameters.lash.index_select(0, fragments.image), where, smooth=True) / 255
    density = parameters.lash_density.index_select(0, fragments.image)[:, None]
    alpha = (1 - (1 - alpha) ** 3) * density  # hairs lie in three layers
    flat = canvas.view(-1, canvas.shape[-1])
    flat[fragments.pixel] *= 1 - (1 - _LASH_ALBEDO) * alpha
