"""The gaze CNN: the paper's list, learning, determinism, augmentation, messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_eyes import toy_eyes, toy_store

from simgan_core import gaze_estimator
from simgan_core.augmentation import augment
from simgan_core.config import GazeConfig
from simgan_core.gaze import angular_error_deg, gaze_vector
from simgan_core.gaze_estimator import (
    GazeCNN,
    euclidean_loss,
    load_gaze_cnn,
    predict,
    save_gaze_cnn,
    train_gaze_cnn,
)
from simgan_core.images import to_float

SMALL = GazeConfig(steps=200, batch=32, width=0.2, learning_rate=9e-4)
NO_CHANGE = {f"augment_{name}": 0.0 for name in ("gain", "offset", "gradient", "blur", "noise", "shift")}


def test_the_papers_list() -> None:
    model = GazeCNN()
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    pools = [m for m in model.modules() if isinstance(m, torch.nn.MaxPool2d)]
    assert [m.out_channels for m in convolutions] == [32, 32, 64, 80, 192]
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert [(m.kernel_size, m.stride) for m in pools] == [(3, 2), (2, 2)]
    assert model.flattened == 9600  # 'FC9600'
    assert [m.out_features for m in model.head if isinstance(m, torch.nn.Linear)] == [1000, 3]
    assert model(torch.zeros(2, 1, 35, 55)).shape == (2, 3)


@pytest.mark.parametrize(("size", "channels"), [((36, 60), 1), ((35, 55), 3)])
def test_other_sizes(size: tuple[int, int], channels: int) -> None:
    assert GazeCNN(0.1, channels, size)(torch.zeros(1, channels, *size)).shape == (1, 3)
    with pytest.raises(ValueError, match="too small"):
        GazeCNN(0.1, size=(12, 12))


def test_euclidean_loss_is_half_the_squared_distance() -> None:
    predicted, truth = torch.tensor([[1.0, 0, 0], [0, 0, 0]]), torch.tensor([[0.0, 0, 0], [0, 2, 0]])
    assert euclidean_loss(predicted, truth).item() == pytest.approx((1 + 4) / 2 / 2)


def test_it_learns_gaze() -> None:
    images, labels = toy_eyes(400, seed=0)
    test_images, test_labels = toy_eyes(100, seed=1)
    model = train_gaze_cnn(images, labels, SMALL, seed=0, progress=False)
    error = angular_error_deg(test_labels, predict(model, test_images)).mean()
    constant = angular_error_deg(test_labels, np.zeros_like(test_labels)).mean()
    assert constant > 10
    assert error < 2.5


def test_the_first_answer_is_the_mean_of_the_labels_and_maps_keep_their_size() -> None:
    images, labels = toy_eyes(64, seed=0)
    mean = gaze_vector(torch.from_numpy(labels)).mean(dim=0)
    spreads = {}
    for initial in ("he", "torch"):
        config = GazeConfig(steps=1, batch=2, width=0.25, learning_rate=1e-12, initial=initial)
        model = train_gaze_cnn(images, labels, config, seed=0, progress=False)
        with torch.no_grad():
            batch = to_float(torch.from_numpy(images))
            off = (model(batch) - mean).norm(dim=1).max().item()
            maps = model.late(model.early(batch))
        spreads[initial] = maps.std().item()
        assert (off < 0.2) == (initial == "he")
    assert 0.1 < spreads["he"] < 2
    assert spreads["torch"] < 0.1


def test_same_seed_same_predictions_and_global_state_kept(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "s", 40, 0)
    few = GazeConfig(steps=4, batch=8, width=0.1)
    before = torch.get_rng_state()

    def predictions(seed: int, augmented: bool = False) -> np.ndarray:
        model = train_gaze_cnn(store, store.pitch_yaw(), few, seed=seed, augment=augmented, progress=False)
        return predict(model, store, batch=16)

    first = predictions(0)
    assert first.dtype == np.float32 and first.shape == (40, 2)
    assert np.array_equal(first, predictions(0))
    assert not np.array_equal(first, predictions(1))
    assert not np.array_equal(first, predictions(0, augmented=True))
    assert np.array_equal(predictions(0, augmented=True), predictions(0, augmented=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_predictions_do_not_depend_on_the_batch() -> None:
    images, _ = toy_eyes(9, seed=0)
    model = GazeCNN(0.1).eval()
    np.testing.assert_allclose(predict(model, images, batch=2), predict(model, images), atol=1e-5)
    assert predict(model, images[:0]).shape == (0, 2)


def test_predictions_are_the_direction_of_the_vector() -> None:
    model = GazeCNN(0.1)
    wanted = np.array([[0.2, -0.1]], np.float32)
    torch.nn.init.zeros_(model.head[2].weight)
    model.head[2].bias.data = 3.0 * gaze_vector(torch.from_numpy(wanted))[0]  # its length does not matter
    np.testing.assert_allclose(predict(model, toy_eyes(1, 0)[0]), wanted, atol=1e-6)


def test_weights_round_trip(tmp_path: Path) -> None:
    images, _ = toy_eyes(5, seed=0)
    model = GazeCNN(0.1).eval()
    save_gaze_cnn(model, tmp_path / "gaze.safetensors")
    loaded = load_gaze_cnn(tmp_path / "gaze.safetensors")
    same = zip(loaded.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert np.allclose(predict(loaded, images), predict(model, images), atol=1e-5)  # kernels may sum in another order
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("initial", ["he", "torch"])
def test_settings_train(schedule: str, optimiser: str, initial: str) -> None:
    """The error on the training images falls from what the untrained net of the same seed makes."""
    images, labels = toy_eyes(20, seed=0)
    config = GazeConfig(steps=20, batch=16, width=0.1, schedule=schedule, optimiser=optimiser, initial=initial)
    trained = train_gaze_cnn(images, labels, config, seed=0, progress=False)
    truth, batch = gaze_vector(torch.from_numpy(labels)), to_float(torch.from_numpy(images))
    untrained = gaze_estimator._new_model(config, images, truth.mean(dim=0), 0)
    with torch.no_grad():
        before, after = (float(euclidean_loss(net(batch), truth)) for net in (untrained, trained))
    assert after < 0.9 * before


def test_wrong_data_is_refused() -> None:
    images, labels = toy_eyes(6, seed=0)
    with pytest.raises(ValueError, match="expected uint8"):
        train_gaze_cnn(images.astype(np.float32), labels, SMALL, seed=0, progress=False)
    with pytest.raises(ValueError, match="expected one"):
        train_gaze_cnn(images, labels[:5], SMALL, seed=0, progress=False)
    labels[3, 1] = np.nan
    with pytest.raises(ValueError, match="label 3 is"):
        train_gaze_cnn(images, labels, SMALL, seed=0, progress=False)


def test_divergence_is_reported() -> None:
    images, labels = toy_eyes(16, seed=0)
    config = GazeConfig(steps=50, batch=8, width=0.1, learning_rate=1e12, optimiser="sgd")
    with pytest.raises(RuntimeError, match=r"loss is .* at step \d+"):
        train_gaze_cnn(images, labels, config, seed=0, progress=False)


# --- augmentation


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_no_augmentation_is_the_identity() -> None:
    images = torch.rand(3, 1, 35, 55) * 2 - 1
    assert torch.equal(augment(images, GazeConfig(**NO_CHANGE), generator()), images)


@pytest.mark.parametrize("name", sorted(NO_CHANGE))
def test_each_augmentation_changes_every_image_differently(name: str) -> None:
    eye = torch.from_numpy(toy_eyes(1, 0)[0]).float() / 127.5 - 1
    images = eye.expand(4, -1, -1, -1) * 0.5
    varied = augment(images, GazeConfig(**NO_CHANGE | {name: 0.8}), generator())
    assert varied.shape == images.shape
    assert (
        sum(not torch.equal(a, b) for a, b in zip(varied, images, strict=True)) >= 2
    )  # a weak draw may change nothing
    assert sum(not torch.equal(varied[0], other) for other in varied[1:]) >= 2
    assert varied.abs().max() <= 1


def test_blur_smooths_and_keeps_brightness() -> None:
    images = torch.rand(8, 1, 35, 55, generator=generator()) - 0.5
    blurred = augment(images, GazeConfig(**NO_CHANGE | {"augment_blur": 1.0}), generator())
    assert (blurred.std(dim=(1, 2, 3)) <= images.std(dim=(1, 2, 3)) + 1e-6).all()
    torch.testing.assert_close(blurred.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=0.02, rtol=0)


def test_shift_moves_by_pixels() -> None:
    images = torch.full((64, 1, 35, 55), -1.0)
    images[:, :, 17, 27] = 1.0
    moved = augment(images, GazeConfig(**NO_CHANGE | {"augment_shift": 2.0}), generator()) + 1
    columns = torch.arange(55.0)
    where = (moved.sum(dim=(1, 2)) * columns).sum(dim=1) / moved.sum(dim=(1, 2, 3))
    assert (where - 27).abs().max() <= 2.01 and where.std() > 0.5


@pytest.mark.parametrize("shape", [(2, 1, 36, 60), (2, 1, 35, 56), (2, 3, 35, 55)])
def test_images_of_another_kind_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"found; \(1, 35, 55\) expected"):
        predict(gaze_estimator.GazeCNN(width=0.1), np.zeros(shape, np.uint8))


def test_a_folder_is_no_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is a folder; expected the file with the weights of a gaze CNN"):
        load_gaze_cnn(str(tmp_path))
