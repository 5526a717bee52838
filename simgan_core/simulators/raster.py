"""Z-buffer for batches of meshes of one topology, in plain torch operations: exact, deterministic, device-agnostic.

Legend: B images, W vertices, F triangles, P covered pixels, N candidates (pixels in the boxes of visible triangles).
Screen coordinates are pixels with pixel centres at halves; depth grows away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DEPTH_STEPS = 2**24
_EDGE_TOLERANCE = 1e-4  # in barycentric units: neighbours overlap by a hair rather than leave a gap


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
        vertices = attributes.shape[1]
        flat = attributes.reshape(-1, attributes.shape[-1])
        corner = triangles[self.triangle] + (self.image * vertices)[:, None]
        weight = self.barycentric
        value = flat[corner[:, 0]] * weight[:, :1]
        value += flat[corner[:, 1]] * weight[:, 1:2]
        return value.add_(flat[corner[:, 2]] * weight[:, 2:])

    def interpolate_corners(self, corners: Tensor) -> Tensor:
        """Interpolate attributes [F, 3, A] that are the same in all images, to the pixels [P, A]."""
        return (corners[self.triangle] * self.barycentric[..., None]).sum(1)


def rasterise(screen: Tensor, triangles: Tensor, height: int, width: int, *, two_sided: bool = False) -> Fragments:
    """Find the nearest triangle at each pixel centre.

    `screen` [B, W, 3] holds x, y in pixels and depth; `triangles` [F, 3]. Triangles are seen when their corners run
    clockwise on the screen as displayed (y down), or from both sides with `two_sided`.
    """
    setup, owner, box = _visible_triangles(screen, triangles, height, width, two_sided)
    candidate, x, y = _box_pixels(box)
    plane = setup[candidate]
    b1 = plane[:, 0] * x + plane[:, 1] * y + plane[:, 2]
    b2 = plane[:, 3] * x + plane[:, 4] * y + plane[:, 5]
    inside = (torch.minimum(b1, b2) >= -_EDGE_TOLERANCE) & (b1 + b2 <= 1 + _EDGE_TOLERANCE)
    hit = inside.nonzero()[:, 0]
    candidate, x, y, plane = candidate[hit], x[hit], y[hit], plane[hit]
    depth = plane[:, 6] * x + plane[:, 7] * y + plane[:, 8]
    image = owner[candidate] // len(triangles)
    pixel = image * (height * width) + y.long() * width + x.long()
    return _nearest(pixel, depth, owner, candidate, b1[hit], b2[hit], len(screen) * height * width, height * width, triangles)


def _visible_triangles(
    screen: Tensor, triangles: Tensor, height: int, width: int, two_sided: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Planes [T, 9] of barycentrics 1, 2 and depth, owners [T] (image * F + triangle), boxes [T, 4] of those in view."""
    corner = screen[:, triangles]  # [B,F,3,3]
    low, high = corner[..., :2].amin(2), corner[..., :2].amax(2)
    edge1, edge2 = corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0]
    area = edge1[..., 0] * edge2[..., 1] - edge1[..., 1] * edge2[..., 0]
    first = (low - 0.5).ceil().clamp_(min=0)
    limit = torch.tensor([width - 1, height - 1], device=screen.device, dtype=screen.dtype)
    last = torch.minimum((high - 0.5).floor(), limit)
    seen = (last >= first).all(-1) & ((area.abs() if two_sided else area) > 1e-6)
    owner = seen.flatten().nonzero()[:, 0]
    base, edge1, edge2, area = (t.flatten(0, 1)[owner] for t in (corner[:, :, 0], edge1, edge2, area))
    inverse = 1 / area
    a1, c1 = edge2[:, 1] * inverse, -edge2[:, 0] * inverse  # barycentric 1 = a1 (x - x0) + c1 (y - y0)
    a2, c2 = -edge1[:, 1] * inverse, edge1[:, 0] * inverse
    dx, dy = edge1[:, 2] * a1 + edge2[:, 2] * a2, edge1[:, 2] * c1 + edge2[:, 2] * c2
    x0, y0, z0 = base.unbind(-1)
    setup = torch.stack(
        [a1, c1, -a1 * x0 - c1 * y0, a2, c2, -a2 * x0 - c2 * y0, dx, dy, z0 - dx * x0 - dy * y0], dim=-1
    )
    return setup, owner, torch.cat([first, last], -1).flatten(0, 1)[owner]


def _box_pixels(box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List the pixel centres of all boxes [T, 4]: number of the box [N], x [N], y [N]."""
    columns = box[:, 2] - box[:, 0] + 1
    count = (columns * (box[:, 3] - box[:, 1] + 1)).long()
    candidate = torch.repeat_interleave(count)
    start = count.cumsum(0) - count
    offset = (torch.arange(len(candidate), device=box.device) - start[candidate]).to(box.dtype)
    x0y0w = torch.stack([box[:, 0], box[:, 1], columns], -1)[candidate]
    row = torch.div(offset + 0.5, x0y0w[:, 2]).floor_()  # the half keeps the quotient off whole numbers
    x = x0y0w[:, 0] + (offset - row * x0y0w[:, 2]) + 0.5
    return candidate, x, x0y0w[:, 1] + row + 0.5


def _nearest(
    pixel: Tensor, depth: Tensor, owner: Tensor, candidate: Tensor, b1: Tensor, b2: Tensor, pixels: int, per_image: int,
    triangles: Tensor,
) -> Fragments:
    """Keep one candidate per pixel: the nearest, on a tie the one listed last."""
    count = len(pixel)
    near, far = (depth.amin(), depth.amax()) if count else (depth.new_zeros(()), depth.new_ones(()))
    nearness = ((far - depth) / (far - near).clamp(min=1e-6) * (_DEPTH_STEPS - 1)).long()
    key = nearness * (count + 1) + torch.arange(1, count + 1, device=pixel.device)
    best = torch.zeros(pixels, dtype=torch.int64, device=pixel.device)
    best.scatter_reduce_(0, pixel, key, reduce="amax")
    covered = best.nonzero()[:, 0]
    chosen = best[covered] % (count + 1) - 1
    b1, b2 = b1[chosen], b2[chosen]
    return Fragments(
        pixel=covered,
        image=covered // per_image,
        triangle=owner[candidate[chosen]] % len(triangles),
        barycentric=torch.stack([1 - b1 - b2, b1, b2], -1),
        depth=depth[chosen],
    )
