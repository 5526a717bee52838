"""Lids that follow the gaze: rotation about the line through the eye's corners, then contact with the eyeball.

After UnityEyes (Wood et al., ETRA 2016): the upper lid turns by about 1.4 degrees per degree of gaze downwards, less
when the eye looks up, the lower lid by a third of it; the inner margin lies on the eyeball, outer loops keep above it.

Legend: B images, V control vertices, L loops, 20 columns around the opening.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.eyeball import surface_radius

_SKIN_THICKNESS_MM = (0.0, 0.3, 1.6, 2.2, 2.2)  # least height of each loop above the eyeball, upper lid


def pose_lids(
    vertices: Tensor, assets: EyeAssets, gaze: Tensor, pitch: Tensor, lid_open: Tensor, lid_gain: Tensor
) -> Tensor:
    """Return control vertices [B, V, 3] (mm, head frame) with lids set for a gaze.

    `gaze` [B, 3] is the unit vector of the eye's axis in the head's frame, `pitch` [B] its pitch in radians (negative =
    down), `lid_open` [B] a further rotation of the upper lid in radians (positive opens), `lid_gain` [B] degrees per
    degree.
    """
    vertices = vertices.clone()
    down = -pitch
    downness = (0.4 + 0.6 * (down + math.radians(20)) / math.radians(40)).clamp(0.4, 1.0)
    follow = down * lid_gain * downness
    for loop, strength in zip(assets.lid_loops, assets.lid_strength.tolist(), strict=True):
        upper = torch.arange(len(loop), device=loop.device) < len(loop) // 2
        angle = torch.where(upper, (follow - lid_open)[:, None], (follow / 3 + lid_open / 6)[:, None]) * strength
        vertices[:, loop] = _turn_loop(vertices, loop, vertices[:, assets.inner_corner], angle)
    return _rest_on_eyeball(vertices, assets, gaze, downness)


def _turn_loop(vertices: Tensor, loop: Tensor, inner: Tensor, angle: Tensor) -> Tensor:
    """Turn one loop [20] by angles [B, 20] about the axis from the inner corner to its own outer corner."""
    columns = len(loop)
    half = columns // 2
    j = torch.arange(columns, device=loop.device)
    to_corner = torch.minimum(torch.minimum(j, (half - j).abs()), columns - j)
    middleness = (to_corner / (half / 2 - 1)).clamp(0, 1)[None, :, None]
    pivot = (1 - middleness) * inner[:, None]  # the inner corner at the corners, the eyeball's centre in the middle
    axis = torch.nn.functional.normalize(vertices[:, loop[half]] - inner, dim=-1)[:, None]
    point = vertices[:, loop] - pivot
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    along = (point * axis).sum(-1, keepdim=True) * axis
    turned = point * cos + torch.linalg.cross(axis.expand_as(point), point) * sin + along * (1 - cos)
    result: Tensor = turned + pivot
    return result


def _rest_on_eyeball(vertices: Tensor, assets: EyeAssets, gaze: Tensor, downness: Tensor) -> Tensor:
    """Press the inner margin onto the eyeball with its cornea, and keep the loops around it above the surface."""
    pressed = torch.zeros_like(vertices[:, assets.lid_loops[0]])
    columns = assets.lid_loops.shape[1]
    # the two columns beside the inner corner belong to the caruncle, which stays where it is
    margin = torch.ones(columns, dtype=torch.bool, device=vertices.device)
    margin[[0, 1, 2, columns - 2, columns - 1]] = False
    for number, loop in enumerate(assets.lid_loops):
        point = vertices[:, loop] + pressed * float(assets.lid_strength[number]) * (number > 0)
        distance = point.norm(dim=-1, keepdim=True)
        direction = point / distance
        surface = surface_radius(direction, gaze[:, None], assets.eyeball)[..., None]
        if number == 0:
            wanted = torch.where(margin[None, :, None], surface, distance)
            pressed = direction * (wanted - distance)
        elif number < len(_SKIN_THICKNESS_MM):
            upper = torch.arange(columns, device=vertices.device) < columns // 2
            share = torch.where(upper, 1.0, 0.5)[None, :, None] * downness[:, None, None]
            wanted = torch.maximum(distance, surface + _SKIN_THICKNESS_MM[number] * share)
        else:
            wanted = distance
        vertices[:, loop] = direction * wanted
    return vertices
