"""Light on surfaces: texture look-ups, shadows cast by lids and brow, sRGB.

Legend: B images, W vertices, P pixels, T texels along a texture's side, G cells along the shadow map's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_CELL_MM = 2.0
_GRID = 48
_BIAS_MM = 1.0
LIFT_MM = 1.5  # points are looked up this far above the surface, so that slopes do not shade themselves
_SOFT_MM = 1.2


def srgb_to_linear(value: Tensor) -> Tensor:
    """Decode sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def decode_texture(texture: Tensor, *, colour: bool) -> Tensor:
    """Linear values of an sRGB texture, uint8 [..., 3], by a table: float [..., 3], or luminance [..., 1]."""
    table = srgb_to_linear(torch.arange(256, device=texture.device) / 255)
    linear = table.index_select(0, texture.flatten().int()).view(texture.shape)
    return linear if colour else luminance(linear)


def linear_to_srgb(value: Tensor) -> Tensor:
    """Encode linear values as sRGB in [0, 1]; values outside are clipped."""
    value = value.clamp(0, 1)
    return torch.where(value <= 0.0031308, value * 12.92, 1.055 * value.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def luminance(colour: Tensor) -> Tensor:
    """Linear luminance of linear RGB [..., 3] (ITU-R BT.709), keeping the axis: [..., 1]."""
    return (colour * torch.tensor([0.2126, 0.7152, 0.0722], device=colour.device, dtype=colour.dtype)).sum(-1, True)


def look_up(textures: Tensor, number: Tensor, uv: Tensor, *, smooth: bool) -> Tensor:
    """Read textures [S, T, U, C] at uv [P, 2] in [0, 1] (u right, v down), as float [P, C].

    `number` [P] chooses the texture. `smooth` interpolates between texels; without it the nearest is read, which is
    enough where several samples fall into one pixel and the textures are no finer than they.
    """
    height, width, channels = textures.shape[1:]
    flat = textures.reshape(-1, channels)
    base = number * (height * width)
    x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    if not smooth:
        return flat.index_select(0, base + _cell(y.round(), height) * width + _cell(x.round(), width)).float()
    x0, y0 = x.floor(), y.floor()
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    left, right = _cell(x0, width), _cell(x0 + 1, width)
    above, below = base + _cell(y0, height) * width, base + _cell(y0 + 1, height) * width
    corners = [flat.index_select(0, row + column).float() for row in (above, below) for column in (left, right)]
    return torch.lerp(torch.lerp(corners[0], corners[1], fx), torch.lerp(corners[2], corners[3], fx), fy)


def _cell(coordinate: Tensor, size: int) -> Tensor:
    return coordinate.clamp(0, size - 1).long()


def vertex_normals(vertices: Tensor, triangles: Tensor, faces_of_vertex: Tensor) -> Tensor:
    """Unit normals [B, W, 3], area-weighted; `faces_of_vertex` [W, n] from `faces_around`, pointing to the camera."""
    a, b, c = (vertices.index_select(1, triangles[:, i]) for i in range(3))
    face = torch.linalg.cross(c - a, b - a)
    face = torch.cat([face, torch.zeros_like(face[:, :1])], 1)
    total = face.index_select(1, faces_of_vertex[:, 0])
    for column in faces_of_vertex.T[1:]:
        total += face.index_select(1, column)
    return functional.normalize(total, dim=-1)


def faces_around(triangles: Tensor, vertices: int) -> Tensor:
    """Triangles around each vertex, int64 [W, n], padded with F (one past the last triangle)."""
    lists: list[list[int]] = [[] for _ in range(vertices)]
    for number, corners in enumerate(triangles.tolist()):
        for vertex in corners:
            lists[vertex].append(number)
    most = max(len(entry) for entry in lists)
    return torch.tensor([entry + [len(triangles)] * (most - len(entry)) for entry in lists])


def rotate_rows(rotation: Tensor, vectors: Tensor) -> Tensor:
    """Apply matrices [P, 9], one per row, to vectors [P, 3]."""
    x, y, z = vectors[:, :1], vectors[:, 1:2], vectors[:, 2:]
    columns = rotation.view(-1, 3, 3).unbind(-1)
    return (columns[0] * x).addcmul_(columns[1], y).addcmul_(columns[2], z)


@dataclass(frozen=True)
class ShadowMap:
    """Heights towards a directional light over a coarse grid across it, from a cloud of surface points per image."""

    height: Tensor  # [B, G*G]
    frame: Tensor  # [B,3,3] rows: two axes across the light, one towards it

    @staticmethod
    def build(points: Tensor, light: Tensor) -> ShadowMap:
        """Splat points [B, W, 3] (mm) as seen from the unit vectors `light` [B, 3]; each covers 3 by 3 cells."""
        helper = torch.tensor([0.0, 1.0, 0.0], device=light.device).expand_as(light)
        across = functional.normalize(torch.linalg.cross(helper, light), dim=-1)
        frame = torch.stack([across, torch.linalg.cross(light, across), light], 1)
        local = _along(points, frame)
        cell = _grid_cell(local)
        height = torch.full((len(points), _GRID * _GRID), -1e4, device=points.device)
        height.scatter_reduce_(1, cell, local[..., 2], reduce="amax")
        height = functional.max_pool2d(height.view(-1, 1, _GRID, _GRID), 3, stride=1, padding=1)
        return ShadowMap(height.flatten(1), frame)

    def lit(self, points: Tensor) -> Tensor:
        """Share of the light, 0 to 1, that reaches points [B, W, 3]: [B, W]."""
        local = _along(points, self.frame)
        return _soft_light(self.height.gather(1, _grid_cell(local)) - local[..., 2])

    def lit_at(self, points: Tensor, image: Tensor) -> Tensor:
        """The same for single points [P, 3] of images [P]: [P]."""
        local = rotate_rows(self.frame.flatten(1).index_select(0, image), points)
        cell = _grid_cell(local) + image * (_GRID * _GRID)
        return _soft_light(self.height.flatten().index_select(0, cell) - local[:, 2])


def ambient_visibility(vertices: Tensor, normals: Tensor, directions: Tensor) -> Tensor:
    """Cosine-weighted share [W] of the directions [D, 3] that each vertex [W, 3] sees past the rest of the surface."""
    cloud = vertices.expand(len(directions), -1, -1)
    lit = ShadowMap.build(cloud, directions).lit(cloud + 2 * LIFT_MM * normals)
    cosine = (normals @ directions.T).clamp(min=0).T
    return (lit * cosine).sum(0) / cosine.sum(0).clamp(min=1e-6)


def _along(points: Tensor, frame: Tensor) -> Tensor:
    """Coordinates of points [B, W, 3] along the rows of frames [B, 3, 3]."""
    return torch.stack([(points * frame[:, None, row]).sum(-1) for row in range(3)], -1)


def _grid_cell(local: Tensor) -> Tensor:
    column, row = ((local[..., :2] / _CELL_MM + _GRID / 2).clamp(0, _GRID - 1)).long().unbind(-1)
    return row * _GRID + column


def _soft_light(above: Tensor) -> Tensor:
    return ((_BIAS_MM - above) / _SOFT_MM).sigmoid()
