"""Ambient light, cast shadows, sRGB, random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from simgan_core.simulators.counter_random import normals, uniforms
from simgan_core.simulators.environments import (
    harmonics,
    irradiance_coefficients,
    room_environments,
    sphere_directions,
)
from simgan_core.simulators.shading import (
    LIFT_MM,
    ShadowMap,
    decode_texture,
    faces_around,
    linear_to_srgb,
    look_up,
    srgb_to_linear,
    vertex_normals,
)


def test_irradiance_matches_a_sum_over_the_hemisphere() -> None:
    direction, angle = sphere_directions(4000)
    radiance = (1 + 0.8 * direction[:, :1] + 0.5 * direction[:, 1:2] * direction[:, 2:]).expand(-1, 3)
    coefficients = irradiance_coefficients(direction, radiance, angle)
    normal = functional.normalize(torch.tensor([[0.3, -0.5, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.2]]).double(), dim=-1)
    summed = ((normal @ direction.T).clamp(min=0) * angle) @ radiance
    assert torch.allclose(harmonics(normal) @ coefficients, summed, rtol=0.02)


def test_rooms_have_mean_irradiance_one_and_differ() -> None:
    rooms = room_environments(8, seed=3)
    direction = sphere_directions(2000)[0].float()
    mean = (harmonics(direction) @ rooms).mean((1, 2))
    assert torch.allclose(mean, torch.ones(8), atol=0.02)
    assert (rooms[0] - rooms[1]).abs().max() > 0.05
    assert torch.equal(rooms, room_environments(8, seed=3))


def test_what_stands_in_the_light_casts_a_shadow() -> None:
    x, y = torch.meshgrid(torch.arange(-20.0, 20, 1.5), torch.arange(-20.0, 20, 1.5), indexing="ij")
    floor = torch.stack([x, y, torch.zeros_like(x)], -1).view(-1, 3)
    wall = floor[(floor[:, 0].abs() < 5) & (floor[:, 1].abs() < 5)] + torch.tensor([0.0, 0.0, -8.0])
    light = functional.normalize(torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, -1.0]]), dim=-1)
    points = torch.cat([floor, wall]).expand(2, -1, -1)
    lit = ShadowMap.build(points, light).lit(floor.expand(2, -1, -1) - torch.tensor([0.0, 0.0, LIFT_MM]))
    below = (floor[:, 0].abs() < 3) & (floor[:, 1].abs() < 3)
    assert lit[0, below].max() < 0.1
    moved = ((floor[:, 0] + 8).abs() < 3) & (floor[:, 1].abs() < 3)  # light from the right throws it to the left
    right = ((floor[:, 0] - 7).abs() < 3) & (floor[:, 1].abs() < 3)
    assert lit[1, moved].max() < 0.1 and lit[1, right].min() > 0.6
    away = floor.abs().amax(1) > 15
    assert lit[0, away].min() > 0.6


def test_shadows_at_single_points_are_those_of_the_batch() -> None:
    points = torch.randn(3, 50, 3, generator=torch.Generator().manual_seed(0)) * 8
    light = functional.normalize(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    shadow = ShadowMap.build(points, light)
    image = torch.arange(3).repeat_interleave(50)
    assert torch.allclose(shadow.lit_at(points.flatten(0, 1), image), shadow.lit(points).flatten(), atol=1e-4)


def test_srgb_goes_there_and_back() -> None:
    level = torch.arange(256, dtype=torch.uint8)
    assert torch.allclose(linear_to_srgb(srgb_to_linear(level / 255)), level / 255, atol=1e-5)
    assert srgb_to_linear(torch.tensor(0.5)).item() == pytest.approx(0.2140, abs=1e-4)
    texture = level.view(16, 16, 1).expand(-1, -1, 3)
    assert torch.allclose(decode_texture(texture, colour=True), srgb_to_linear(texture / 255), atol=1e-6)
    assert torch.allclose(decode_texture(texture, colour=False), srgb_to_linear(texture[..., :1] / 255), atol=1e-5)


def test_textures_are_read_where_asked() -> None:
    textures = torch.rand(2, 8, 16, 3, generator=torch.Generator().manual_seed(0))
    uv = torch.tensor([[(5 + 0.5) / 16, (2 + 0.5) / 8], [1.0, 1.0]])
    number = torch.tensor([1, 0])
    for smooth in (False, True):
        value = look_up(textures, number, uv, smooth=smooth)
        assert torch.allclose(value[0], textures[1, 2, 5], atol=1e-5)
        assert torch.allclose(value[1], textures[0, 7, 15], atol=1e-5)
    between = look_up(textures, number[:1], torch.tensor([[6.0 / 16, 2.5 / 8]]), smooth=True)
    assert torch.allclose(between[0], (textures[1, 2, 5] + textures[1, 2, 6]) / 2, atol=1e-5)


def test_normals_point_to_the_camera() -> None:
    vertices = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])  # clockwise as displayed
    normal = vertex_normals(vertices, triangles, faces_around(triangles, 4))
    assert torch.allclose(normal[0], torch.tensor([0.0, 1.0, -1.0]).expand(4, 3) / math.sqrt(2), atol=1e-6)


def test_random_numbers_depend_on_seed_index_and_column_alone() -> None:
    table = uniforms(7, range(1000), 6)
    assert np.array_equal(uniforms(7, [999, 3], 6), table[[999, 3]])
    assert np.array_equal(uniforms(7, range(1000), 4), table[:, :4])
    assert not np.isclose(uniforms(8, range(1000), 6), table).any()
    assert table.min() > 0 and table.max() < 1
    assert np.abs(table.mean(0) - 0.5).max() < 0.04
    correlation = np.corrcoef(np.concatenate([table, np.roll(table, 1, axis=0)], 1).T) - np.eye(12)
    assert np.abs(correlation).max() < 0.12
    bell = normals(uniforms(1, range(20000), 1))
    assert bell.std() == pytest.approx(1, abs=0.02) and np.abs(bell).max() < 6


@pytest.mark.parametrize("indices", [[-1], [[0, 1]]])
def test_bad_image_numbers_are_refused(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="image numbers"):
        uniforms(0, indices, 2)
