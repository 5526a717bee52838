"""The z-buffer against a slow one written out, and its order of depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.simulators.raster import rasterise

HEIGHT, WIDTH = 20, 26


def slow_z_buffer(
    screen: NDArray[np.float64], triangles: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Nearest clockwise triangle per pixel (-1: none), and pixels too near an edge or a tie to be decided."""
    nearest = np.full((HEIGHT, WIDTH), np.inf)
    owner = np.full((HEIGHT, WIDTH), -1)
    doubtful = np.zeros((HEIGHT, WIDTH), bool)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for number, corners in enumerate(triangles):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = screen[corners]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area <= 0:
            continue
        wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
        wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
        least = np.minimum(np.minimum(wb, wc), 1 - wb - wc)
        doubtful |= np.abs(least) < 1e-3
        depth = az + wb * (bz - az) + wc * (cz - az)
        inside = least >= 0
        doubtful |= inside & (np.abs(depth - nearest) < 1e-3)
        closer = inside & (depth < nearest)
        nearest[closer], owner[closer] = depth[closer], number
    return owner, doubtful


def scene(seed: int, images: int = 2) -> tuple[Tensor, Tensor]:
    """Random triangles of all sizes, some off the screen, some turned away."""
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(images, 60, 3, generator=generator) * torch.tensor([40.0, 34.0, 10.0])
    vertices += torch.tensor([-7.0, -7.0, 600.0])
    return vertices, torch.randint(0, 60, (40, 3), generator=generator)


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_shows_the_nearest_triangle(seed: int) -> None:
    screen, triangles = scene(seed)
    fragments = rasterise(screen, triangles, HEIGHT, WIDTH)
    found = torch.full((2 * HEIGHT * WIDTH,), -1)
    found[fragments.pixel] = fragments.triangle
    for image in range(2):
        expected, doubtful = slow_z_buffer(screen[image].double().numpy(), triangles.numpy())
        same = found.view(2, HEIGHT, WIDTH)[image].numpy() == expected
        assert (same | doubtful).all()
        assert doubtful.mean() < 0.2 and (expected >= 0).mean() > 0.2  # the comparison says something


def test_the_nearer_of_two_wins_in_either_order() -> None:
    square = torch.tensor([[2.0, 2.0], [18.0, 2.0], [18.0, 18.0]])
    near, far = (torch.cat([square, torch.full((3, 1), z)], 1) for z in (590.0, 610.0))
    screen = torch.cat([near, far])[None]
    for triangles in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        fragments = rasterise(screen, torch.tensor(triangles), HEIGHT, WIDTH)
        assert torch.allclose(fragments.depth, torch.tensor(590.0))


def test_neighbours_leave_no_gap_and_affine_attributes_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.meshgrid(torch.linspace(0, WIDTH, 9), torch.linspace(0, HEIGHT, 8), indexing="xy")
    points = torch.stack([x, y], -1)
    points[1:-1, 1:-1] += torch.rand(6, 7, 2, generator=generator) - 0.5
    corner = torch.arange(72).view(8, 9)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    triangles = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([b, d, c], -1).view(-1, 3)])
    screen = torch.cat([points.view(1, -1, 2), torch.full((1, 72, 1), 600.0)], -1)
    fragments = rasterise(screen, triangles, HEIGHT, WIDTH)
    assert torch.equal(fragments.pixel, torch.arange(HEIGHT * WIDTH))
    value = fragments.interpolate(screen[..., :2], triangles)
    assert torch.allclose(value[:, 0], fragments.pixel % WIDTH + 0.5, atol=1e-3)
    assert torch.allclose(value[:, 1], fragments.pixel // WIDTH + 0.5, atol=1e-3)
    assert torch.allclose(fragments.interpolate_corners(screen[0, :, :2][triangles]), value, atol=1e-4)


def test_triangles_turned_away_show_only_when_two_sided() -> None:
    screen = torch.tensor([[[2.0, 2.0, 600.0], [2.0, 18.0, 600.0], [18.0, 2.0, 600.0]]])
    triangle = torch.tensor([[0, 1, 2]])
    assert len(rasterise(screen, triangle, HEIGHT, WIDTH).pixel) == 0
    seen = rasterise(screen, triangle, HEIGHT, WIDTH, two_sided=True)
    assert abs(len(seen.pixel) - 128) < 17  # half of a 16 by 16 square, give or take its diagonal
    assert torch.allclose(seen.barycentric.sum(1), torch.ones(len(seen.pixel)), atol=1e-5)


def test_nothing_in_view_is_an_empty_result() -> None:
    screen = torch.tensor([[[-9.0, -9.0, 600.0], [-2.0, -9.0, 600.0], [-9.0, -2.0, 600.0]]])
    fragments = rasterise(screen, torch.tensor([[0, 1, 2]]), HEIGHT, WIDTH)
    assert len(fragments.pixel) == 0 and fragments.barycentric.shape == (0, 3)


def test_an_image_does_not_depend_on_its_batch() -> None:
    screen, triangles = scene(11, images=5)
    together = rasterise(screen, triangles, HEIGHT, WIDTH)
    for image in range(5):
        alone = rasterise(screen[image : image + 1], triangles, HEIGHT, WIDTH)
        own = together.image == image
        assert torch.equal(together.pixel[own] - image * HEIGHT * WIDTH, alone.pixel)
        assert torch.equal(together.triangle[own], alone.triangle)
        assert torch.equal(together.barycentric[own], alone.barycentric)
