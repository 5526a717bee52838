"""The eyeball's optics against Snell's law and plain geometry."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from simgan_core.simulators.assets import EyeballGeometry
from simgan_core.simulators.eyeball import (
    cornea_centre_mm,
    intersect,
    limbus_plane_mm,
    limbus_points,
    pupil_centre_seen,
    refract_to_iris,
    surface_radius,
)

EYE = EyeballGeometry()
STRAIGHT = torch.tensor([[0.0, 0.0, 1.0]])


def test_a_ray_along_the_axis_meets_the_apex_and_reaches_the_pupil() -> None:
    hit = intersect(torch.tensor([[0.0, 0.0, -600.0]]), STRAIGHT, EYE)
    assert bool(hit.hit) and bool(hit.cornea)
    assert hit.distance.item() == pytest.approx(600 - EYE.cornea_apex_mm, abs=1e-3)
    assert torch.allclose(hit.normal, -STRAIGHT, atol=1e-4)
    assert torch.allclose(hit.texture, torch.zeros(1, 2), atol=1e-3)


def test_rays_beside_the_cornea_meet_the_sclera_and_others_miss() -> None:
    origin = torch.tensor([[9.0, 0.0, -600.0], [13.0, 0.0, -600.0]])
    hit = intersect(origin, STRAIGHT.expand(2, 3), EYE)
    assert hit.hit.tolist() == [True, False]
    assert not bool(hit.cornea[0])
    assert hit.texture[0].tolist() == pytest.approx([9.0, 0.0], abs=1e-3)
    point = origin[0] + hit.distance[0] * STRAIGHT[0]
    assert point.norm().item() == pytest.approx(EYE.radius_mm, abs=1e-3)
    assert torch.allclose(hit.normal[0], point / EYE.radius_mm, atol=1e-4)


def test_spheres_meet_at_the_limbus() -> None:
    plane = limbus_plane_mm(EYE)
    radius = math.sqrt(EYE.radius_mm**2 - plane**2)
    assert radius == pytest.approx(EYE.limbus_radius_mm, abs=0.05)
    assert math.hypot(radius, plane - cornea_centre_mm(EYE)) == pytest.approx(EYE.cornea_radius_mm, abs=1e-6)


def test_refraction_keeps_snells_law() -> None:
    direction = functional.normalize(torch.tensor([[0.3, -0.2, 1.0]]), dim=-1)
    height = math.sqrt(EYE.cornea_radius_mm**2 - 1.5**2 - 1.0**2)
    normal = torch.tensor([[1.5, 1.0, -height]]) / EYE.cornea_radius_mm
    point = normal * EYE.cornea_radius_mm + torch.tensor([0.0, 0.0, -cornea_centre_mm(EYE)])
    landed = refract_to_iris(point, direction, normal, EYE)
    inside = functional.normalize(torch.cat([landed, torch.tensor([[-EYE.iris_plane_mm]])], 1) - point, dim=-1)
    outer = torch.linalg.cross(direction, normal).norm().item()
    inner = torch.linalg.cross(inside, normal).norm().item()
    assert outer / inner == pytest.approx(EYE.refractive_index, rel=1e-4)
    assert torch.linalg.det(torch.stack([direction[0], normal[0], inside[0]])).abs().item() < 1e-5  # one plane
    straight_on = refract_to_iris(point, direction, normal, replace(EYE, refractive_index=1.0))
    step = (-EYE.iris_plane_mm - point[0, 2]) / direction[0, 2]
    assert torch.allclose(straight_on, point[:, :2] + step * direction[:, :2], atol=1e-4)


@pytest.mark.parametrize("tilt", [0.0, 0.2, 0.5, -0.4])
def test_the_camera_sees_the_pupils_centre_through_the_point_given(tilt: float) -> None:
    to_camera = functional.normalize(torch.tensor([[math.sin(tilt), 0.5 * tilt, -math.cos(tilt)]]), dim=-1)
    point = pupil_centre_seen(to_camera, EYE)
    hit = intersect(point + 600 * to_camera, -to_camera, EYE)
    assert bool(hit.cornea)
    assert torch.allclose(hit.texture, torch.zeros(1, 2), atol=0.02)


def test_surface_radius_agrees_with_rays() -> None:
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(200, 3, generator=generator)
    direction[:, 2] = -direction[:, 2].abs() - 0.5
    direction = functional.normalize(direction, dim=-1)
    radius = surface_radius(direction, torch.tensor([0.0, 0.0, -1.0]), EYE)
    hit = intersect(direction * 100, -direction, EYE)
    assert torch.allclose(radius, 100 - hit.distance, atol=2e-3)
    assert radius.max() > 12.9 and radius.min() == pytest.approx(EYE.radius_mm, abs=1e-3)


@pytest.mark.parametrize("tilt", [0.0, 0.3, -0.5])
def test_limbus_points_are_where_the_camera_sees_the_iris_end(tilt: float) -> None:
    """Behind the cornea the iris looks larger than it is; a larger iris than that ends on the sclera."""
    to_camera = functional.normalize(torch.tensor([[math.sin(tilt), 0.5 * tilt, -math.cos(tilt)]]), dim=-1)
    scale = torch.tensor([0.88, 0.93, 1.0, 1.1])
    points = limbus_points(32, scale, to_camera.expand(4, -1), EYE)
    assert points.shape == (4, 32, 3)
    for ring, one in zip(points, scale.tolist(), strict=True):
        hit = intersect(ring + 600 * to_camera, -to_camera.expand(32, -1), EYE)
        facing = (ring * to_camera).sum(-1) > 4.0  # the far side of a turned eye hides behind itself
        seen = hit.texture.norm(dim=-1)[facing]
        assert facing.sum() > 20 and torch.allclose(seen, torch.tensor(EYE.limbus_radius_mm * one), atol=0.06)
    straight = limbus_points(4, torch.tensor([0.95]), torch.tensor([[0.0, 0.0, -1.0]]), EYE)[0]
    assert straight[0, 0].item() == pytest.approx(5.457, abs=0.01), "not 5.32: the cornea magnifies"
    on_sclera = limbus_points(4, torch.tensor([1.1]), torch.tensor([[0.0, 0.0, -1.0]]), EYE)[0]
    assert on_sclera[0].tolist() == pytest.approx([6.16, 0.0, -math.sqrt(EYE.radius_mm**2 - 6.16**2)], abs=1e-3)
