"""Z-buffer for batches of meshes of one topology, in plain torch operations: exact, deterministic, device-agnostic.

Each visible triangle is cut into the spans of pixel centres that it covers, row by row; the nearest span wins a pixel.

Legend: B images, W vertices, F triangles, T visible triangles, R rows (of triangles), N span pixels, P covered pixels.
Screen coordinates are pixels with pixel centres at halves; depth grows away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DEPTH_STEPS = 2**24
_EDGE_TOLERANCE = 1e-4  # in barycentric units: neighbours overlap by a hair rather than leave a gap
_FLAT = 1e-9  # edges flatter than this (barycentric units per pixel) count as horizontal


@dataclass(frozen=True)
class Fragments:
    """The nearest triangle of each covered pixel, sorted by pixel."""

    pixel: Tensor  # int64 [P] into B*H*W
    image: Tensor  # int64 [P]
    triangle: Tensor  # int64 [P]
    barycentric: Tensor  # [P,3] in screen space: exact for affine attributes, triangles are small against the distance
    depth: Tensor  # [P]

    def interpolate(self, attributes: Tensor, triangles: Tensor) -> Tensor:
        """Interpolate vertex attributes [B, W, A] to the pixels [P, A]."""
        flat = attributes.reshape(-1, attributes.shape[-1])
        corner = triangles.index_select(0, self.triangle) + (self.image * attributes.shape[1])[:, None]
        value = flat.index_select(0, corner[:, 0]).mul_(self.barycentric[:, :1])
        value.addcmul_(flat.index_select(0, corner[:, 1]), self.barycentric[:, 1:2])
        return value.addcmul_(flat.index_select(0, corner[:, 2]), self.barycentric[:, 2:])

    def interpolate_corners(self, corners: Tensor) -> Tensor:
        """Interpolate attributes [F, 3, A] that are the same in all images, to the pixels [P, A]."""
        value = corners[:, 0].index_select(0, self.triangle).mul_(self.barycentric[:, :1])
        value.addcmul_(corners[:, 1].index_select(0, self.triangle), self.barycentric[:, 1:2])
        return value.addcmul_(corners[:, 2].index_select(0, self.triangle), self.barycentric[:, 2:])


def rasterise(screen: Tensor, triangles: Tensor, height: int, width: int, *, two_sided: bool = False) -> Fragments:
    """Find the nearest triangle at each pixel centre.

    `screen` [B, W, 3] holds x, y in pixels and depth; `triangles` [F, 3]. Triangles are seen when their corners run
    clockwise on the screen as displayed (y down), or from both sides with `two_sided`.
    """
    spans = _cover(screen, triangles, height, width, two_sided)
    covered, chosen = _nearest(spans.pixel, spans.depth, len(screen) * height * width)
    triangle = spans.of_row.index_select(0, spans.of_pixel.index_select(0, chosen))
    return Fragments(
        pixel=covered,
        image=torch.div(covered, height * width, rounding_mode="floor"),
        triangle=spans.owner.index_select(0, triangle) % len(triangles),
        barycentric=_barycentric(spans.planes.index_select(0, triangle), covered, height, width),
        depth=spans.depth.index_select(0, chosen),
    )


def rasterise_depth(screen: Tensor, triangles: Tensor, height: int, width: int, *, two_sided: bool = False) -> Tensor:
    """Depth of the nearest triangle at each pixel centre [B, H, W], infinite where there is none; as `rasterise`."""
    spans = _cover(screen, triangles, height, width, two_sided)
    image = torch.full((len(screen) * height * width,), torch.inf, device=screen.device)
    return image.scatter_reduce_(0, spans.pixel, spans.depth, reduce="amin").view(len(screen), height, width)


@dataclass(frozen=True)
class _Spans:
    """All pixels that visible triangles cover, row by row of each triangle."""

    planes: Tensor  # [T,9]
    owner: Tensor  # int64 [T]
    of_row: Tensor  # int64 [R] into T
    of_pixel: Tensor  # int64 [N] into R
    pixel: Tensor  # int64 [N] into B*H*W
    depth: Tensor  # [N]


def _cover(screen: Tensor, triangles: Tensor, height: int, width: int, two_sided: bool) -> _Spans:
    planes, owner, first_row, rows = _visible_triangles(screen, triangles, height, width, two_sided)
    of_row = torch.repeat_interleave(rows)
    y = _count_up(rows, of_row).to(planes.dtype).add_(first_row.index_select(0, of_row)).add_(0.5)
    x, length = _spans(planes.index_select(0, of_row), y, width)
    of_pixel = torch.repeat_interleave(length)
    along = _count_up(length, of_pixel)
    image = torch.div(owner, len(triangles), rounding_mode="floor").index_select(0, of_row)
    first_pixel = image * (height * width) + y.long() * width + x.long()
    pixel = along + first_pixel.index_select(0, of_pixel)
    slope = planes[:, 6].index_select(0, of_row)
    start = slope * (x + 0.5) + planes[:, 7].index_select(0, of_row) * y + planes[:, 8].index_select(0, of_row)
    depth = torch.addcmul(start.index_select(0, of_pixel), slope.index_select(0, of_pixel), along.to(slope.dtype))
    return _Spans(planes, owner, of_row, of_pixel, pixel, depth)


def _visible_triangles(
    screen: Tensor, triangles: Tensor, height: int, width: int, two_sided: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Triangles in view: planes [T, 9], owners (image * F + triangle) [T], first row and number of rows [T].

    A plane holds the x, y and constant terms of barycentrics 1 and 2 and of depth.
    """
    corner = screen.index_select(1, triangles.flatten()).view(len(screen), len(triangles), 3, 3)
    a, b, c = corner.unbind(2)
    low, high = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
    area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    first = (low[..., :2] - 0.5).ceil().clamp_(min=0)
    last = torch.minimum((high[..., :2] - 0.5).floor(), torch.tensor([width - 1.0, height - 1.0], device=screen.device))
    seen = (last >= first).all(-1) & ((area.abs() if two_sided else area) > 1e-6)
    owner = seen.flatten().nonzero()[:, 0]
    base, b, c = corner.view(-1, 3, 3).index_select(0, owner).unbind(1)
    edge1, edge2 = b - base, c - base
    inverse = 1 / (edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0])
    a1, c1 = edge2[:, 1] * inverse, -edge2[:, 0] * inverse  # barycentric 1 = a1 (x - x0) + c1 (y - y0)
    a2, c2 = -edge1[:, 1] * inverse, edge1[:, 0] * inverse
    dx, dy = edge1[:, 2] * a1 + edge2[:, 2] * a2, edge1[:, 2] * c1 + edge2[:, 2] * c2
    x0, y0, z0 = base.unbind(-1)
    planes = torch.stack(
        [a1, c1, -a1 * x0 - c1 * y0, a2, c2, -a2 * x0 - c2 * y0, dx, dy, z0 - dx * x0 - dy * y0], dim=-1
    )
    first_row = first[..., 1].flatten().index_select(0, owner)
    last_row = last[..., 1].flatten().index_select(0, owner)
    return planes, owner, first_row, (last_row - first_row + 1).long()


def _count_up(count: Tensor, owner: Tensor) -> Tensor:
    """0, 1, ... within each run of `count` elements; `owner` = repeat_interleave(count)."""
    start = count.cumsum(0).sub_(count)
    return torch.arange(len(owner), device=owner.device).sub_(start.index_select(0, owner))


def _spans(planes: Tensor, y: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """First column and length [R] of the run of pixel centres of row y inside each triangle's three edges."""
    a1, c1, d1, a2, c2, d2 = planes[:, :6].unbind(-1)
    first, last = torch.full_like(y, 0.0), torch.full_like(y, width - 1.0)
    edges = ((a1, c1, d1), (a2, c2, d2), (-a1 - a2, -c1 - c2, 1 - d1 - d2))
    for a, c, d in edges:  # inside means a x + c y + d >= 0
        a = torch.where(a.abs() < _FLAT, _FLAT, a)
        bound = -(c * y + d + _EDGE_TOLERANCE) / a - 0.5
        first = torch.where(a > 0, torch.maximum(first, bound.ceil()), first)
        last = torch.where(a < 0, torch.minimum(last, bound.floor()), last)
    return first, (last - first + 1).clamp_(min=0).long()


def _nearest(pixel: Tensor, depth: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Covered pixels [P], sorted, and the number [P] of the nearest entry at each; on a tie the one listed last."""
    count = len(pixel)
    if count == 0:
        return pixel, pixel
    near, far = depth.aminmax()
    steps = (far - depth).mul_((_DEPTH_STEPS - 1) / (far - near).clamp(min=1e-6))
    key = steps.long().mul_(count + 1).add_(torch.arange(1, count + 1, device=pixel.device))
    best = torch.zeros(pixels, dtype=torch.int64, device=pixel.device)
    best.scatter_reduce_(0, pixel, key, reduce="amax")
    covered = best.nonzero()[:, 0]
    return covered, best.index_select(0, covered) % (count + 1) - 1


def _barycentric(planes: Tensor, pixel: Tensor, height: int, width: int) -> Tensor:
    """Barycentrics [P, 3] at pixel centres."""
    x = (pixel % width).to(planes.dtype) + 0.5
    y = (torch.div(pixel, width, rounding_mode="floor") % height).to(planes.dtype) + 0.5
    b1 = planes[:, 0] * x + planes[:, 1] * y + planes[:, 2]
    b2 = planes[:, 3] * x + planes[:, 4] * y + planes[:, 5]
    return torch.stack([1 - b1 - b2, b1, b2], -1)
