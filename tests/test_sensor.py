"""The camera of the stand-in target domain: each of its parts measured on test patterns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from simgan_core.simulators.sensor import CameraModel

PERFECT = CameraModel(
    exposure_stops=(0.0, 0.0),
    gradient=(0.0, 0.0),
    vignette=(0.0, 0.0),
    defocus_px=(0.05, 0.05),
    motion_px=(0.0, 0.0),
    resolution=(1.0, 1.0),
    full_well_log10=(12.0, 12.0),
    read_noise=(0.0, 0.0),
    gamma=(1.0, 1.0),
    jpeg_probability=0.0,
)


def linear(coded: Tensor) -> Tensor:
    return torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def pictures(count: int = 6, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 6, 10, generator=generator)
    return torch.nn.functional.interpolate(coarse, (36, 60), mode="bilinear")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_the_same_whatever_the_batch(channels: int) -> None:
    images, camera = pictures(6, channels), CameraModel()
    together = camera(images, 7, range(10, 16))
    assert together.shape == images.shape and together.min() >= 0 and together.max() <= 1
    for row in range(6):
        assert torch.equal(camera(images[row : row + 1], 7, [10 + row])[0], together[row])
    assert torch.equal(camera(images[[4, 1]], 7, torch.tensor([14, 11])), together[[4, 1]])
    assert not torch.equal(camera(images, 8, range(10, 16)), together)


def test_the_same_scene_gives_different_photographs() -> None:
    photographs = CameraModel()(pictures(1).expand(5, -1, -1, -1), 0, range(5))
    assert len(torch.unique(photographs.flatten(1), dim=0)) == 5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_perfect_camera_changes_nothing_but_rounding(channels: int) -> None:
    images = pictures(channels=channels)
    assert (PERFECT(images, 0, range(6)) - images).abs().max() <= 0.51 / 255 + 1e-5


def test_exposure_is_in_stops() -> None:
    image = torch.full((1, 1, 36, 60), 0.4)
    brighter = replace(PERFECT, exposure_stops=(1.0, 1.0))(image, 0, [0])
    assert linear(brighter).mean() == pytest.approx(2 * linear(image).mean().item(), rel=0.01)


def test_gradient_and_vignette() -> None:
    image = torch.full((8, 1, 36, 60), 0.5)
    tilted = linear(replace(PERFECT, gradient=(0.4, 0.4))(image, 0, range(8)))
    corners = tilted[:, 0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    ratio = (corners.amax(1) - corners.amin(1)) / linear(image[:, 0, 0, 0])
    assert (ratio > 0.35).all()
    assert (corners.argmax(1) != corners.argmax(1)[0]).any()  # the direction is random
    dark = linear(replace(PERFECT, vignette=(0.3, 0.3))(image, 0, range(8)))
    assert (dark[:, 0, 0, 0] / dark[:, 0, 18, 30]).numpy() == pytest.approx(0.7, abs=0.02)


def spread(camera: CameraModel) -> tuple[float, np.ndarray]:
    """Sum and second moments [2, 2] (pixels squared) of the photograph of a point, in linear light."""
    point = torch.zeros(1, 1, 37, 61)
    point[0, 0, 18, 30] = 1.0
    light = linear(camera(point, 3, [0]))[0, 0].double()
    y, x = torch.meshgrid(torch.arange(37) - 18.0, torch.arange(61) - 30.0, indexing="ij")
    offsets = torch.stack((y, x)).double()
    return float(light.sum()), np.asarray(torch.einsum("ayx,byx,yx->ab", offsets, offsets, light) / light.sum())


def test_defocus_has_the_stated_width_and_keeps_the_light() -> None:
    total, moments = spread(replace(PERFECT, defocus_px=(1.0, 1.0)))
    assert total == pytest.approx(1.0, abs=0.05)
    assert np.diag(moments) == pytest.approx([1.0, 1.0], abs=0.1)


def test_motion_smears_along_one_direction() -> None:
    _, moments = spread(replace(PERFECT, defocus_px=(0.5, 0.5), motion_px=(4.0, 4.0)))
    along, across = np.linalg.eigvalsh(moments)[::-1]
    assert across == pytest.approx(0.25, abs=0.1)
    assert along == pytest.approx(0.25 + 16 * 0.125, rel=0.15)  # five positions from -L/2 to L/2


def test_shot_noise_follows_the_electrons() -> None:
    image = torch.full((4, 1, 36, 60), 0.6)
    camera = replace(PERFECT, full_well_log10=(3.0, 3.0))
    light = linear(camera(image, 0, range(4)))
    expected = float(linear(image).mean()) / 1000
    assert float(light.var()) == pytest.approx(expected, rel=0.1)
    darker = linear(camera(image * 0.5, 0, range(4)))
    assert darker.var() < 0.5 * light.var()


def test_read_noise_does_not_depend_on_light() -> None:
    camera = replace(PERFECT, read_noise=(0.01, 0.01))
    for level in (0.4, 0.8):
        light = linear(camera(torch.full((4, 1, 36, 60), level), 0, range(4)))
        assert float(light.std()) == pytest.approx(0.01, rel=0.1)


def test_low_resolution_loses_fine_detail() -> None:
    stripes = (torch.arange(60) % 2).float().expand(1, 1, 36, 60) * 0.5 + 0.25
    sharp, soft = PERFECT(stripes, 0, [0]), replace(PERFECT, resolution=(0.5, 0.5))(stripes, 0, [0])
    assert soft.shape == stripes.shape
    assert soft.std() < 0.2 * sharp.std()


def test_tone_curve() -> None:
    image = torch.full((1, 1, 36, 60), 0.5)
    assert replace(PERFECT, gamma=(1.2, 1.2))(image, 0, [0]).mean() == pytest.approx(0.5**1.2, abs=0.003)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_worse_at_lower_quality_and_keeps_colours(channels: int) -> None:
    images = pictures(channels=channels)
    errors = []
    for quality in (95.0, 20.0):
        camera = replace(PERFECT, jpeg_probability=1.0, jpeg_quality=(quality, quality))
        errors.append((camera(images, 0, range(6)) - images).abs().mean().item())
    assert 0.001 < errors[0] < 0.5 * errors[1] < 0.05


def test_wrong_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        CameraModel(gamma=(1.2, 0.8))
    with pytest.raises(ValueError, match="resolution"):
        CameraModel(resolution=(0.0, 1.0))
    with pytest.raises(ValueError, match="jpeg_quality"):
        CameraModel(jpeg_quality=(0.0, 90.0))
    with pytest.raises(ValueError, match="jpeg_probability"):
        CameraModel(jpeg_probability=1.5)
    with pytest.raises(ValueError, match="one index per image"):
        PERFECT(pictures(6), 0, range(5))
    with pytest.raises(ValueError, match="1 or 3"):
        PERFECT(pictures(2)[:, 0], 0, range(2))
