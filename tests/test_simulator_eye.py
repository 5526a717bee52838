"""Rendered eyes: labels against what the pictures show, seeds, depth, light."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from simgan_core.gaze import gaze_vector, mirror_images
from simgan_core.simulators import EyeAssets, EyeParameters, EyeRanges, EyeSimulator
from simgan_core.simulators.lids import pose_lids
from simgan_core.simulators.scene import gaze_rotation
from simgan_core.simulators.simulate import load_assets

FRAME = (48, 80)


@pytest.fixture(scope="module")
def assets() -> EyeAssets:
    return load_assets(None)


@pytest.fixture(scope="module")
def simulator(assets: EyeAssets) -> EyeSimulator:
    """Eyes with plain irises: a painted one that is darker on one side shifts the centre of what changes."""
    side = assets.iris.shape[1]
    offset = (torch.arange(side) + 0.5) / side - 0.5
    radius = (offset[:, None] ** 2 + offset[None] ** 2).sqrt() / assets.eyeball.texture_per_mm
    plain = torch.where(radius < assets.eyeball.pupil_radius_mm, 5, 170).to(torch.uint8)
    return EyeSimulator(replace(assets, iris=plain[None, :, :, None].expand(len(assets.iris), -1, -1, 3)), frame=FRAME)


@pytest.fixture(scope="module")
def open_eyes(simulator: EyeSimulator) -> EyeParameters:
    """Twelve wide open eyes without glints or lashes, over the range of gaze."""
    drawn = simulator.sample(3, range(12))
    pitch = torch.linspace(-0.25, 0.05, 3).repeat_interleave(4)
    yaw = torch.linspace(-0.3, 0.3, 4).repeat(3)
    nothing = torch.zeros(12)
    return replace(
        drawn,
        gaze=torch.stack([pitch, yaw], 1),
        head=torch.zeros(12, 3),
        lid_open=nothing + math.radians(14),
        glint=nothing,
        lash_density=nothing,
        iris_tone=nothing + 0.9,
        shape=torch.zeros_like(drawn.shape),
        shadow_strength=nothing,
        shift=drawn.shift[:1].expand(12, 2),
    )


def centroid_of_change(first: Tensor, second: Tensor) -> Tensor:
    """Centre (x, y) of the absolute difference of images [B, 1, H, W], pixel corners counted from 0."""
    change = (first - second).abs().sum(1)
    change = torch.where(change > 0.25 * change.amax((1, 2), keepdim=True), change, torch.zeros_like(change))
    y, x = torch.meshgrid(torch.arange(change.shape[1]) + 0.5, torch.arange(change.shape[2]) + 0.5, indexing="ij")
    total = change.sum((1, 2))
    return torch.stack([(change * x).sum((1, 2)) / total, (change * y).sum((1, 2)) / total], 1)


def pupil_in_picture(simulator: EyeSimulator, parameters: EyeParameters) -> Tensor:
    """Where the picture changes when the pupil shrinks: the pupil's centre, found without using any label."""
    small, large = (replace(parameters, pupil_radius=torch.full((12,), r)) for r in (0.8, 2.0))
    return centroid_of_change(simulator.render(small).image, simulator.render(large).image)


def test_the_pupil_label_is_where_the_dark_disc_is(simulator: EyeSimulator, open_eyes: EyeParameters) -> None:
    found = pupil_in_picture(simulator, open_eyes)
    label = simulator.render(open_eyes).labels.pupil
    assert (found - label).norm(dim=1).max() < 0.7
    assert (label.amax(0) - label.amin(0)).min() > 5  # the eyes do look around


def test_the_iris_landmarks_ring_the_pupil(simulator: EyeSimulator, open_eyes: EyeParameters) -> None:
    labels = simulator.render(open_eyes).labels
    ring = labels.iris_landmarks
    pixels_per_mm = FRAME[1] / open_eyes.field_width
    radius = (ring.amax(1) - ring.amin(1)).amax(1) / 2 / pixels_per_mm
    assert torch.allclose(radius, 5.6 * open_eyes.iris_scale, rtol=0.05)
    assert ((ring.mean(1) - labels.pupil).norm(dim=1) / pixels_per_mm).max() < 0.6  # parallax through the cornea


def test_gaze_moves_the_pupil_as_the_conventions_say(simulator: EyeSimulator, open_eyes: EyeParameters) -> None:
    batch = simulator.render(open_eyes)
    pupil = batch.labels.pupil.view(3, 4, 2)
    assert (pupil[:, 1:, 0] < pupil[:, :-1, 0]).all()  # greater yaw: further to image-left
    assert (pupil[1:, :, 1] < pupil[:-1, :, 1]).all()  # greater pitch: higher up
    expected = gaze_vector(open_eyes.gaze)
    assert torch.allclose(batch.labels.gaze_vector, expected, atol=1e-6)


def test_a_mirrored_picture_shows_the_gaze_with_negated_yaw(simulator: EyeSimulator, open_eyes: EyeParameters) -> None:
    """Mirroring moves the pupil to the other side of the eyeball's centre by the amount that negated yaw does."""
    straight = replace(open_eyes, gaze=open_eyes.gaze * torch.tensor([1.0, 0.0]))
    negated = replace(open_eyes, gaze=open_eyes.gaze * torch.tensor([1.0, -1.0]))
    small, large = (replace(open_eyes, pupil_radius=torch.full((12,), r)) for r in (0.8, 2.0))
    in_mirror = centroid_of_change(
        mirror_images(simulator.render(small).image), mirror_images(simulator.render(large).image)
    )
    from_centre = in_mirror[:, 0] - (FRAME[1] - simulator.render(straight).labels.pupil[:, 0])
    expected = simulator.render(negated).labels.pupil[:, 0] - simulator.render(straight).labels.pupil[:, 0]
    assert (from_centre - expected).abs().max() < 0.8
    assert expected.abs().max() > 4


def test_lids_hide_the_eyeball(simulator: EyeSimulator, open_eyes: EyeParameters) -> None:
    shut = replace(open_eyes, lid_open=torch.full((12,), -math.radians(60)))
    small, large = (replace(shut, pupil_radius=torch.full((12,), r)) for r in (0.8, 2.0))
    assert (simulator.render(small).image - simulator.render(large).image).abs().max() < 0.02


def test_an_image_is_the_same_whatever_its_batch(simulator: EyeSimulator) -> None:
    together = simulator.render(simulator.sample(5, range(9)))
    for index in (0, 4, 8):
        alone = simulator.render(simulator.sample(5, [index]))
        assert torch.equal((together.image[index] * 255).round(), (alone.image[0] * 255).round())
        assert torch.allclose(together.labels.pupil[index], alone.labels.pupil[0], atol=1e-4)
    backwards = simulator.render(simulator.sample(5, range(8, -1, -1)))
    assert torch.equal((together.image * 255).round(), (backwards.image.flip(0) * 255).round())


def test_seeds_and_numbers_give_different_eyes(simulator: EyeSimulator) -> None:
    image = torch.cat([simulator.render(simulator.sample(seed, range(4))).image for seed in (0, 1)])
    difference = (image[:, None] - image[None]).abs().mean((2, 3, 4))
    assert difference[~torch.eye(8, dtype=torch.bool)].min() > 0.01


def test_the_light_comes_from_where_it_is_said_to_be(simulator: EyeSimulator, open_eyes: EyeParameters) -> None:
    half = FRAME[1] // 2
    balance = []
    for side in (-1.0, 1.0):
        direction = torch.tensor([side * 0.8, 0.0, -0.6]).expand(12, 3)
        image = simulator.render(
            replace(open_eyes, light=direction, light_intensity=torch.ones(12), shadow_strength=torch.zeros(12))
        ).image
        balance.append(image[..., half:].mean((1, 2, 3)) - image[..., :half].mean((1, 2, 3)))
    assert (balance[1] - balance[0]).min() > 0.02


@pytest.mark.parametrize("light", [(-0.8, 0.0), (0.8, 0.0), (0.0, -0.8), (0.0, 0.8)])
def test_a_bump_of_the_skin_is_bright_where_it_faces_the_light(
    assets: EyeAssets, open_eyes: EyeParameters, light: tuple[float, float]
) -> None:
    """Relief of the displacement texture: once its slopes had the wrong sign, and wrinkles were lit from below."""
    side = assets.displacement.shape[1]
    at = (torch.arange(side) + 0.5) / side
    bump = 128 + 100 * torch.exp(-((at[None] - 0.5) ** 2 + (at[:, None] - 0.62) ** 2) / 0.03**2)
    direction = torch.tensor([*light, -0.6]).expand(12, 3)
    wide, bright = torch.full((12,), 55.0), torch.full((12,), 2.0)
    lit = replace(open_eyes, light=direction, light_intensity=bright, skin_bump=torch.ones(12), field_width=wide)
    raised, flat = (
        EyeSimulator(replace(assets, displacement=height.to(torch.uint8).expand(len(assets.skin), -1, -1)), frame=FRAME)
        .render(lit)
        .image
        for height in (bump, torch.full_like(bump, 128))
    )
    change = raised - flat
    brighter, darker = (centroid_of_change(part, torch.zeros_like(part)) for part in (change.relu(), (-change).relu()))
    towards = (brighter - darker) @ torch.tensor(light)
    assert change.abs().amax() > 0.02 and (towards > 0.8).all(), "of a bump some four pixels wide"


def test_colour_shows_what_grey_shows(assets: EyeAssets) -> None:
    grey, colour = (EyeSimulator(assets, colour=c) for c in (False, True))
    parameters = grey.sample(0, range(6))
    one, three = grey.render(parameters).image, colour.render(parameters).image
    assert one.shape == (6, 1, 36, 60) and three.shape == (6, 3, 36, 60)
    luma = (three * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    for a, b in zip(one[:, 0], luma, strict=True):
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.98
    assert (three.amax(1) - three.amin(1)).mean() > 0.02


def test_frames_of_other_sizes_show_the_same_scene(assets: EyeAssets) -> None:
    small, large = EyeSimulator(assets, frame=(36, 60)), EyeSimulator(assets, frame=(72, 120))
    parameters = small.sample(0, range(4))
    first, second = small.render(parameters), large.render(parameters)
    assert torch.allclose(first.labels.pupil * 2, second.labels.pupil, atol=1e-3)
    reduced = torch.nn.functional.avg_pool2d(second.image, 2)
    assert (reduced - first.image).abs().mean() < 0.02


def test_gaze_rotation_takes_the_camera_axis_to_the_gaze() -> None:
    angles = (torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 2
    rotation = gaze_rotation(angles[:, 0], angles[:, 1], angles[:, 0])
    assert torch.allclose(-rotation[:, :, 2], gaze_vector(angles), atol=1e-6)
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)


def test_lids_follow_the_gaze_and_rest_on_the_eyeball(assets: EyeAssets) -> None:
    pitch = torch.tensor([0.2, 0.0, -0.2, -0.4])
    axis = gaze_vector(torch.stack([pitch, torch.zeros(4)], 1))
    control = assets.mean.expand(4, -1, -1)
    posed = pose_lids(control, assets, axis, pitch, torch.zeros(4), torch.full((4,), 1.4))
    margin = posed[:, assets.lid_loops[0]]
    upper, lower = margin[:, 5, 1], margin[:, 15, 1]
    assert (upper[1:] > upper[:-1] + 0.3).all()  # y is down: the upper lid sinks with the gaze
    assert ((upper[1:] - upper[:-1]) > (lower[1:] - lower[:-1])).all()
    assert margin[:, 3:18].norm(dim=-1).min() > assets.eyeball.radius_mm - 1e-3
    assert torch.equal(posed[:, assets.inner_corner], control[:, assets.inner_corner])


def test_every_draw_stays_in_its_range(assets: EyeAssets) -> None:
    ranges = EyeRanges()
    drawn = EyeSimulator(assets, ranges).sample(1, range(4000))
    for name in ("iris_tone", "sclera_tone", "light_intensity", "lid_gain", "shadow_strength", "wetness", "occlusion"):
        low, high = getattr(ranges, name)
        value = getattr(drawn, name)
        assert value.min() >= low and value.max() <= high
        assert value.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    assert torch.allclose(drawn.light.norm(dim=1), torch.ones(4000), atol=1e-5)
    pitch, yaw = torch.rad2deg(drawn.gaze).unbind(1)
    assert pitch.min() >= ranges.gaze_pitch_deg[0] and pitch.max() <= ranges.gaze_pitch_deg[1]
    assert yaw.std().item() == pytest.approx(40 / math.sqrt(12), rel=0.05)
    width = drawn.field_width
    assert width.mean().item() == pytest.approx(ranges.field_width_normal_mm[0], abs=0.1)
    assert drawn.iris.unique().numel() == len(assets.iris) and drawn.skin.unique().numel() == len(assets.skin)
    table = torch.stack([drawn.light_intensity, drawn.glint, drawn.lid_gain, drawn.gaze[:, 0], drawn.exposure])
    assert (torch.corrcoef(table) - torch.eye(5)).abs().max() < 0.06  # columns are independent


def test_only_the_skins_asked_for_are_drawn(assets: EyeAssets) -> None:
    drawn = EyeSimulator(assets, EyeRanges(skins=(1, 3))).sample(0, range(200))
    assert drawn.skin.unique().tolist() == [1, 3]


def test_a_gaze_prior_is_followed(assets: EyeAssets) -> None:
    prior = np.array([[-0.2, 0.1], [0.0, -0.3]])
    drawn = EyeSimulator(assets, EyeRanges(gaze_jitter_deg=0.1).with_prior(prior)).sample(0, range(500))
    distance = torch.cdist(drawn.gaze, torch.tensor(prior).float())
    assert distance.amin(1).max() < math.radians(0.5)
    assert distance.argmin(1).float().mean().item() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.zeros((3, 3)), np.array([[0.0, np.nan]])])
def test_a_bad_gaze_prior_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected finite radians"):
        EyeRanges().with_prior(bad)


def test_frames_too_small_are_refused(assets: EyeAssets) -> None:
    with pytest.raises(ValueError, match="at least 8 pixels"):
        EyeSimulator(assets, frame=(4, 60))


def test_rows_of_parameters_are_chosen_together(simulator: EyeSimulator) -> None:
    drawn = simulator.sample(0, range(6))
    two = drawn.rows(torch.tensor([4, 1]))
    assert len(two) == 2 and two.index.tolist() == [4, 1]
    for field in fields(two):
        if field.name != "seed":
            assert torch.equal(getattr(two, field.name)[0], getattr(drawn, field.name)[4])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_renders_the_same_eyes(assets: EyeAssets) -> None:
    on_cpu = EyeSimulator(assets)
    on_gpu = EyeSimulator(assets, device="cuda")
    first, second = on_cpu.render(on_cpu.sample(0, range(16))), on_gpu.render(on_gpu.sample(0, range(16)))
    assert (first.image - second.image.cpu()).abs().mean() < 2e-3
    assert torch.allclose(first.labels.pupil, second.labels.pupil.cpu(), atol=1e-2)
