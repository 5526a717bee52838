"""The hand estimator: it learns, follows its seed, and its augmentation moves pixels and joints alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_hands import toy_hands

from simgan_core.config_hand import HourglassConfig
from simgan_core.hand_estimator import (
    augment_hands,
    heatmap_loss,
    load_hourglass,
    predict_joints,
    save_hourglass,
    train_hourglass,
)
from simgan_core.hand_heatmaps import draw_heatmaps
from simgan_core.images import to_float
from simgan_core.schedule import warm_up_cosine

SMALL = HourglassConfig(heatmap=14, stem_stride=4, features=24, depth=1, steps=150, batch=16, learning_rate=3e-3)


def test_it_learns_joints_to_a_pixel() -> None:
    images, uv = toy_hands(400, 0, joints=3)
    test_images, truth = toy_hands(100, 1, joints=3)
    model = train_hourglass(images, uv, SMALL, seed=0, progress=False)
    errors = np.linalg.norm(predict_joints(model, test_images) - truth, axis=-1)
    assert np.median(errors) < 1.5, "pixels of 56; cells have 4"
    assert np.median(np.linalg.norm(uv.mean(axis=0) - truth, axis=-1)) > 10


def test_it_follows_its_seed_and_leaves_the_global_generator_alone() -> None:
    images, uv = toy_hands(32, 0)
    quick, state = replace(SMALL, steps=3), torch.get_rng_state()
    first, again, other = (train_hourglass(images, uv, quick, seed=seed, progress=False) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(predict_joints(first, images), predict_joints(again, images))
    assert not np.array_equal(predict_joints(first, images), predict_joints(other, images))


def spots(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with one bright block, and its middle."""
    generator = np.random.default_rng(0)
    at = generator.integers(side // 3, 2 * side // 3, (count, 2))
    images = np.zeros((count, 1, side, side), np.uint8)
    for image, (u, v) in zip(images, at, strict=True):
        image[0, v - 3 : v + 3, u - 3 : u + 3] = 200
    return to_float(torch.from_numpy(images)), torch.from_numpy(at).float()[:, None]


def test_augmentation_moves_joints_with_their_pixels() -> None:
    images, uv = spots(60, 96)
    moved, joints = augment_hands(images, uv, HourglassConfig(), torch.Generator().manual_seed(0))
    assert (joints - uv).abs().max() > 5, "something moved"
    for image, (u, v) in zip(moved, joints[:, 0], strict=True):
        rows, columns = (image[0] > 0).nonzero(as_tuple=True)
        if len(rows) >= 25:  # not cut off at the border
            assert abs(float(columns.float().mean()) + 0.5 - float(u)) < 0.7
            assert abs(float(rows.float().mean()) + 0.5 - float(v)) < 0.7
    assert set(moved.unique().tolist()) == set(images.unique().tolist()), "no depth is invented"


def test_augmentation_stays_within_its_bounds() -> None:
    config = HourglassConfig(rotate_deg=20, crop=0.1)
    images = torch.full((500, 1, 8, 8), -1.0)
    ends = torch.tensor([[4.0, 4.0], [8.0, 4.0]]).repeat(500, 1, 1)
    _, moved = augment_hands(images, ends, config, torch.Generator().manual_seed(1))
    arm = moved[:, 1] - moved[:, 0]
    angle, length = torch.rad2deg(torch.atan2(arm[:, 1], arm[:, 0])), arm.norm(dim=-1) / 4
    assert 18 < angle.abs().max() <= 20.001 and 0.89 < length.min() < 0.92 and 1.08 < length.max() < 1.101
    assert 0.36 < (moved[:, 0] - 4).abs().max() <= 0.4001, "a tenth of half the side"
    still = replace(config, rotate_deg=0.0, crop=0.0)
    images = torch.randn(3, 1, 8, 8)
    same, joints = augment_hands(images, ends[:3], still, torch.Generator())
    assert torch.allclose(same, images, atol=1e-4) and torch.allclose(joints, ends[:3], atol=1e-4)


def test_every_stack_is_supervised() -> None:
    truth = draw_heatmaps(torch.full((1, 1, 2), 4.0), (8, 8))
    assert heatmap_loss([truth, truth], truth) == 0
    first = heatmap_loss([truth + 1, truth], truth)
    assert first == pytest.approx(64.0), "summed over cells"
    assert heatmap_loss([truth + 1, truth + 1], truth) == pytest.approx(128.0)


def test_the_rate_rises_and_falls() -> None:
    factors = [warm_up_cosine(step, 200) for step in range(200)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] > 0.99
    assert factors[9:] == sorted(factors[9:], reverse=True) and factors[-1] < 1e-3
    assert warm_up_cosine(0, 1) == 1.0, "one step is not lost"


def test_weights_survive_a_file(tmp_path: Path) -> None:
    images, uv = toy_hands(16, 0)
    model = train_hourglass(images, uv, replace(SMALL, steps=2), seed=0, progress=False)
    save_hourglass(model, tmp_path / "hand.safetensors")
    again = load_hourglass(tmp_path / "hand.safetensors")
    assert np.allclose(predict_joints(model, images), predict_joints(again, images), atol=1e-5)
    with pytest.raises(FileNotFoundError, match="hand estimator"):
        load_hourglass(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("images", "uv", "message"),
    [
        (np.zeros((4, 3, 56, 56), np.uint8), np.zeros((4, 14, 2), np.float32), "expected depth crops"),
        (np.zeros((4, 1, 56, 56), np.float32), np.zeros((4, 14, 2), np.float32), "expected depth crops"),
        (np.zeros((4, 1, 56, 56), np.uint8), np.zeros((3, 14, 2), np.float32), "for 4 images"),
        (np.zeros((4, 1, 56, 56), np.uint8), np.zeros((4, 14, 3), np.float32), "u and v each"),
        (np.zeros((4, 1, 56, 56), np.uint8), np.full((4, 14, 2), np.nan, np.float32), "image 0 are not finite"),
    ],
)
def test_wrong_data_are_refused(images: np.ndarray, uv: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_hourglass(images, uv, SMALL, seed=0, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heatmap": 60}, "multiple of 16"),
        ({"stem_stride": 3}, "1, 2 or 4"),
        ({"stacks": 0}, "1 or more"),
        ({"crop": 0.6}, "crop below 0.5"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HourglassConfig(**changes)  # type: ignore[arg-type]
