"""Lashes: two ribbons with a coverage texture, blended over the picture.

Legend: B images, R = 5 points from root to tip, J guide hairs along a lid, N textures.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.ranges import EyeParameters
from simgan_core.simulators.raster import rasterise
from simgan_core.simulators.scene import Scene
from simgan_core.simulators.shading import look_up

_POINTS = 5
_UPPER, _LOWER = (2, 10), (11, 18)  # columns of the lid loops that carry lashes
_UPPER_BEND, _LOWER_BEND = (-0.9, 0.5), (0.0, 1.2)  # tangent of the angle away from the opening, at root and tip
_ALBEDO = 0.1  # brightness left under full coverage
_LAYERS = 3  # hairs lie over one another


class Lashes:
    """Ribbons over both lids; their textures lie side by side, the upper lid's on the left."""

    def __init__(self, assets: EyeAssets) -> None:
        self._assets = assets
        lashes = assets.lashes
        count = min(len(lashes.upper_alpha), len(lashes.lower_alpha))
        self._alpha = torch.cat([lashes.upper_alpha[:count], lashes.lower_alpha[:count]], -1)[..., None].contiguous()
        triangles, uv, first = [], [], 0
        for lid, (low, high) in enumerate((_UPPER, _LOWER)):
            hairs = high - low
            vertex = torch.arange(hairs * _POINTS)
            along = torch.div(vertex, _POINTS, rounding_mode="floor") / (hairs - 1)
            root = 1 - (vertex % _POINTS) / (_POINTS - 1)
            uv.append(torch.stack([(lid + along) / 2, root], -1))
            triangles += _grid(hairs, first)
            first += hairs * _POINTS
        index = torch.tensor(triangles)
        device = assets.mean.device
        self._triangles, self._uv = index.to(device), torch.cat(uv)[index].to(device)

    def strips(self, scene: Scene, parameters: EyeParameters) -> Tensor:
        """Vertices [B, (J_upper + J_lower) * R, 3] of both ribbons (mm, camera frame), hair by hair from root to tip.

        A hair starts outside the lid margin, leaves along the eyeball's radius and curls away from the opening.
        """
        lashes, factor = self._assets.lashes, parameters.lash_length
        upper = self._grow(scene, _UPPER, lashes.upper_length_mm * factor, _UPPER_BEND)
        return torch.cat([upper, self._grow(scene, _LOWER, lashes.lower_length_mm * factor, _LOWER_BEND)], 1)

    def _grow(self, scene: Scene, columns: tuple[int, int], length: Tensor, bend: tuple[float, float]) -> Tensor:
        loops = self._assets.lid_loops[:, slice(*columns)]
        root = torch.lerp(scene.control[:, loops[0]], scene.control[:, loops[1]], 0.6)
        radial = functional.normalize(root - scene.centre[:, None], dim=-1)
        away = functional.normalize(scene.control[:, loops[2]] - root, dim=-1)
        points = [root]
        for step in range(1, _POINTS):
            tangent = bend[0] + (bend[1] - bend[0]) * (step - 1) / (_POINTS - 2)
            direction = functional.normalize(radial + tangent * away, dim=-1)
            points.append(points[-1] + direction * (length / (_POINTS - 1))[:, None, None])
        return torch.stack(points, 2).flatten(1, 2)

    def draw(self, scene: Scene, parameters: EyeParameters, canvas: Tensor) -> None:
        """Darken `canvas` [B*h*w, C] in place under the ribbons; nothing of the face lies in front of them."""
        screen = scene.project(self.strips(scene, parameters))
        fragments = rasterise(screen, self._triangles, scene.height, scene.width, two_sided=True)
        where = fragments.interpolate_corners(self._uv)
        bare = 1 - look_up(self._alpha, parameters.lash.index_select(0, fragments.image), where, smooth=True) / 255
        density = parameters.lash_density.index_select(0, fragments.image)[:, None]
        canvas[fragments.pixel] *= 1 - (1 - _ALBEDO) * density * (1 - bare**_LAYERS)


def _grid(hairs: int, first: int) -> list[list[int]]:
    """Triangles of one ribbon of `hairs` hairs whose vertices start at `first`."""
    triangles = []
    for hair in range(hairs - 1):
        for point in range(_POINTS - 1):
            a = first + hair * _POINTS + point
            b = a + _POINTS
            triangles += [[a, b, a + 1], [b, b + 1, a + 1]]
    return triangles
