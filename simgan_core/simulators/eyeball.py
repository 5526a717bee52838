"""The eyeball, met by each camera ray in closed form: sclera, cornea, refraction onto a flat iris.

The eyeball's own frame has its centre at the origin and its optical axis along -z (the eye frame when looking at the
camera). Legend: R rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simgan_core.simulators.assets import EyeballGeometry


@dataclass(frozen=True)
class EyeballHit:
    """Where rays meet the eyeball; entries of rays that miss are meaningless."""

    hit: Tensor  # bool [R]
    distance: Tensor  # [R] along the ray, mm
    normal: Tensor  # [R,3] outward, eyeball frame
    texture: Tensor  # [R,2] mm, (x, y) on the iris plane or on the sclera, before the scale of iris and pupil
    cornea: Tensor  # bool [R]


def cornea_centre_mm(shape: EyeballGeometry) -> float:
    """Distance of the cornea sphere's centre from the eyeball's centre."""
    return shape.cornea_apex_mm - shape.cornea_radius_mm


def limbus_plane_mm(shape: EyeballGeometry) -> float:
    """Distance from the eyeball's centre of the plane in which the two spheres meet."""
    c = cornea_centre_mm(shape)
    return (shape.radius_mm**2 - shape.cornea_radius_mm**2 + c * c) / (2 * c)


def cornea_rim_mm(shape: EyeballGeometry) -> float:
    """Radius of the circle in which the two spheres meet."""
    return math.sqrt(shape.radius_mm**2 - limbus_plane_mm(shape) ** 2)


def surface_radius(direction: Tensor, axis: Tensor, shape: EyeballGeometry) -> Tensor:
    """Distance in mm from the centre to the surface along unit vectors [..., 3]; `axis` is the optical axis."""
    c = cornea_centre_mm(shape)
    cosine = (direction * axis).sum(-1)
    bulge = (shape.cornea_radius_mm**2 - c * c * (1 - cosine * cosine)).clamp(min=0).sqrt() + c * cosine
    on_cornea = cosine * bulge >= limbus_plane_mm(shape)
    return torch.where(on_cornea, bulge, torch.full_like(bulge, shape.radius_mm)).clamp(min=shape.radius_mm)


def intersect(origin: Tensor, direction: Tensor, shape: EyeballGeometry) -> EyeballHit:
    """Meet rays (origins and unit directions [R, 3], eyeball frame, mm) with cornea and sclera."""
    centre = torch.tensor([0.0, 0.0, -cornea_centre_mm(shape)], device=origin.device, dtype=origin.dtype)
    near_sclera, met_sclera = _sphere(origin, direction, shape.radius_mm)
    near_cornea, met_cornea = _sphere(origin - centre, direction, shape.cornea_radius_mm)
    z = origin[:, 2] + near_cornea * direction[:, 2]
    cornea = met_cornea & (-z >= limbus_plane_mm(shape))
    distance = torch.where(cornea, near_cornea, near_sclera)
    point = origin + distance[:, None] * direction
    normal = torch.where(cornea[:, None], (point - centre) / shape.cornea_radius_mm, point / shape.radius_mm)
    iris = refract_to_iris(point, direction, normal, shape)
    return EyeballHit(cornea | met_sclera, distance, normal, torch.where(cornea[:, None], iris, point[:, :2]), cornea)


def _sphere(origin: Tensor, direction: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Nearest meeting of rays with a sphere about the origin: distance [R], met [R]."""
    along = (origin * direction).sum(-1)
    # from the point nearest to the centre: numerically exact although the camera is 50 radii away
    nearest = origin - along[:, None] * direction
    square = radius * radius - (nearest * nearest).sum(-1)
    return -along - square.clamp(min=0).sqrt(), square > 0


def refract_to_iris(point: Tensor, direction: Tensor, normal: Tensor, shape: EyeballGeometry) -> Tensor:
    """Follow rays that enter the cornea at `point` to the iris plane by Snell's law; (x, y) there [R, 2] in mm."""
    ratio = 1 / shape.refractive_index
    cosine = -(normal * direction).sum(-1, keepdim=True)
    root = (1 - ratio * ratio * (1 - cosine * cosine)).clamp(min=0).sqrt()
    inside = ratio * direction + (ratio * cosine - root) * normal
    step = (-shape.iris_plane_mm - point[:, 2]) / inside[:, 2].clamp(min=0.05)
    return point[:, :2] + step.clamp(min=0)[:, None] * inside[:, :2]


def pupil_centre_seen(direction_to_camera: Tensor, shape: EyeballGeometry, steps: int = 6) -> Tensor:
    """Point on the cornea, eyeball frame [B, 3], through which a far camera sees the pupil's centre.

    `direction_to_camera` [B, 3] are unit vectors in the eyeball's frame. Fixed-point iteration: the ray that enters the
    cornea at `point` must arrive at the iris plane's origin.
    """
    return seen_through_cornea(torch.zeros_like(direction_to_camera[:, :2]), direction_to_camera, shape, steps)


def seen_through_cornea(plane: Tensor, direction_to_camera: Tensor, shape: EyeballGeometry, steps: int = 6) -> Tensor:
    """Points on the cornea [R, 3] through which a far camera sees positions `plane` [R, 2] (mm) of the iris plane.

    `direction_to_camera` [R, 3] are unit vectors in the eyeball's frame. Points past the cornea's rim are put on it.
    """
    centre = torch.tensor([0.0, 0.0, -cornea_centre_mm(shape)], device=plane.device)
    rim = cornea_rim_mm(shape)
    offset = plane
    for step in range(steps):
        depth = (shape.cornea_radius_mm**2 - (offset * offset).sum(-1)).clamp(min=0).sqrt() - float(centre[2])
        point = torch.cat([offset, -depth[:, None]], -1)
        if step < steps - 1:
            landed = refract_to_iris(point, -direction_to_camera, (point - centre) / shape.cornea_radius_mm, shape)
            offset = offset - landed + plane
            offset = offset * (rim / offset.norm(dim=-1, keepdim=True).clamp(min=rim))
    return point


def limbus_points(count: int, scale: Tensor, direction_to_camera: Tensor, shape: EyeballGeometry) -> Tensor:
    """`count` points around the limbus [B, count, 3] (mm, eyeball frame), where the camera sees it; first at the right.

    Iris scale [B], unit vectors to the camera [B, 3]. The iris of a scale below one ends behind the cornea, which shows
    it larger; that of a larger scale is painted on the sclera.
    """
    angle = torch.arange(count, device=scale.device) * (2 * math.pi / count)
    radius = (shape.limbus_radius_mm * scale)[:, None, None]
    plane = radius * torch.stack([angle.cos(), angle.sin()], -1)
    directions = direction_to_camera[:, None].expand(-1, count, -1)
    inside = seen_through_cornea(plane.flatten(0, 1), directions.flatten(0, 1), shape, steps=12).view(-1, count, 3)
    z = -(shape.radius_mm**2 - radius * radius).clamp(min=0).sqrt().expand(-1, count, -1)
    return torch.where(radius > cornea_rim_mm(shape), torch.cat([plane, z], -1), inside)
