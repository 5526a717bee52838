"""Ambient light: order-2 spherical harmonics of a surrounding, and simple rooms to take it from.

Legend: E environments, D directions, N normals. Axes of the camera: x right, y down, z away from the camera.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BAND_GAIN = (math.pi, *(2 * math.pi / 3,) * 3, *(math.pi / 4,) * 5)  # Lambert's cosine lobe, bands 0, 1, 2


def harmonics(normal: Tensor) -> Tensor:
    """Real spherical harmonics up to order 2 of unit vectors [..., 3], as [..., 9]."""
    x, y, z = normal.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        dim=-1,
    )


def irradiance_coefficients(direction: Tensor, radiance: Tensor, solid_angle: Tensor) -> Tensor:
    """Irradiance coefficients [9, C] of a surrounding sampled at directions [D, 3] (Ramamoorthi and Hanrahan 2001).

    `radiance` is [D, C], linear; `solid_angle` [D] in steradians. Irradiance at normal n = harmonics(n) @ result.
    """
    projected = harmonics(direction).T @ (radiance * solid_angle[:, None])
    return projected * torch.tensor(_BAND_GAIN, dtype=projected.dtype)[:, None]


def sphere_directions(count: int = 512) -> tuple[Tensor, Tensor]:
    """`count` directions spread evenly (Fibonacci spiral) [D, 3], and their solid angles [D] in steradians."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * i / count
    turn = math.pi * (1 + 5**0.5) * i
    r = (1 - z * z).sqrt()
    direction = torch.stack([r * turn.cos(), z, r * turn.sin()], -1)
    return direction, torch.full((count,), 4 * math.pi / count, dtype=torch.float64)


def room_environments(count: int, seed: int) -> Tensor:
    """Coefficients [E, 9, 3] of `count` rooms: ceiling, floor, walls, a window and a screen, of mean irradiance 1."""
    rng = np.random.default_rng(seed)
    direction, angle = sphere_directions()
    rooms = []
    for _ in range(count):
        radiance = torch.from_numpy(_room_radiance(direction.numpy(), rng))
        coefficients = irradiance_coefficients(direction, radiance, angle)
        mean = coefficients[0].mean() * 0.282095
        rooms.append(coefficients / mean)
    return torch.stack(rooms).float()


def _room_radiance(direction: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Linear RGB radiance [D, 3] of one random room seen in the given directions."""
    up = -direction[:, 1]
    ceiling, floor, wall = rng.uniform(0.6, 1.4), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.9)
    grey = np.where(up > 0.5, ceiling, np.where(up < -0.4, floor, wall))
    warmth = rng.uniform(-0.12, 0.12)
    colour = grey[:, None] * np.array([1 + warmth, 1.0, 1 - warmth])
    for _ in range(int(rng.integers(1, 4))):
        azimuth, height = rng.uniform(-math.pi, math.pi), rng.uniform(-0.1, 1.2)
        level = math.cos(height)
        towards = np.array([math.sin(azimuth) * level, -math.sin(height), -math.cos(azimuth) * level])
        width = rng.uniform(0.25, 0.7)
        glow = np.exp(-((np.arccos(np.clip(direction @ towards, -1, 1)) / width) ** 2))
        colour = colour + rng.uniform(1.0, 8.0) * glow[:, None] * np.array([0.95, 1.0, 1.05])
    return np.asarray(colour)
