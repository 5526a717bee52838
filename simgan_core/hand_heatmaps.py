"""Heatmaps of joints: drawn from positions, and read back to a fraction of a cell (section 3.2, hand estimator).

Shapes: B batch, J joints, h w heatmap cells. Positions are (u, v) in heatmap cells, [B, J, 2]; the centre of the first
cell is (0.5, 0.5), so that a position in pixels of the image is the one in cells times pixels per cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-4
"""Heat below this carries no position: it is noise of the network."""


def draw_heatmaps(positions: Tensor, size: tuple[int, int], sigma: float = 1.0) -> Tensor:
    """Gaussians of height 1 about the positions [B, J, 2]: [B, J, h, w]. `sigma` in cells.

    A joint outside the map leaves only the tail of its Gaussian there.
    """
    rows = torch.arange(size[0], device=positions.device, dtype=positions.dtype) + 0.5
    columns = torch.arange(size[1], device=positions.device, dtype=positions.dtype) + 0.5
    across = (columns - positions[..., 0, None]).square()
    down = (rows - positions[..., 1, None]).square()
    return torch.exp(-(across[..., None, :] + down[..., :, None]) / (2 * sigma**2))


def read_heatmaps(heatmaps: Tensor) -> Tensor:
    """Positions [B, J, 2] of the peaks of [B, J, h, w], to a fraction of a cell.

    Through the logarithms of the highest cell and its two neighbours along each axis goes a parabola, whose top is
    exactly the centre of a Gaussian. At the border, and where the neighbours are no peak, the cell's centre is taken.
    """
    height, width = heatmaps.shape[-2:]
    best = heatmaps.flatten(2).argmax(dim=-1)
    row, column = best // width, best % width
    logs = heatmaps.float().clamp(min=_SMALLEST).log()
    u = column + 0.5 + _parabola_top(logs, row, column, axis=-1, length=width)
    v = row + 0.5 + _parabola_top(logs, row, column, axis=-2, length=height)
    return torch.stack([u, v], dim=-1)


def _parabola_top(logs: Tensor, row: Tensor, column: Tensor, *, axis: int, length: int) -> Tensor:
    """Distance of the parabola's top from the highest cell along one axis, at most half a cell; 0 without one."""
    place = column if axis == -1 else row
    inner = (place > 0) & (place < length - 1)
    middle = place.clamp(1, length - 2)
    before, top, after = (_at(logs, row, column, axis, middle + step) for step in (-1, 0, 1))
    curvature = before - 2 * top + after
    found = 0.5 * (before - after) / torch.where(curvature < 0, curvature, torch.ones_like(curvature))
    return torch.where(inner & (curvature < 0), found.clamp(-0.5, 0.5), torch.zeros_like(found))


def _at(logs: Tensor, row: Tensor, column: Tensor, axis: int, place: Tensor) -> Tensor:
    row, column = (row, place) if axis == -1 else (place, column)
    return logs.flatten(2).gather(2, (row * logs.shape[-1] + column)[..., None])[..., 0]
