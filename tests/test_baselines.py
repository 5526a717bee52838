"""The shallow estimators: known answers of each, head pose where both sides know it, and the same numbers twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_eyes import SIZE, toy_eyes, toy_store

from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.evaluation import baselines
from simgan_core.evaluation.baselines import (
    BASELINES,
    AdaptiveLinearRegression,
    build,
    describe,
    fit_and_predict,
    head_pose,
    validation_errors,
)
from simgan_core.gaze import angular_error_deg


def headed(path: Path, count: int, seed: int) -> Store:
    """Images that show nothing, with a head pose that is the gaze itself."""
    _, labels = toy_eyes(count, seed)
    images = np.full((count, 1, *SIZE), 128, np.uint8)
    names = {"pitch": labels[:, 0], "yaw": labels[:, 1], "head_pitch": labels[:, 0], "head_yaw": labels[:, 1]}
    with StoreWriter(path, size=SIZE, provenance={"toy": seed}) as writer:
        writer.append(images, names)
    return Store.open(path)


def test_the_nearest_neighbour_of_a_training_image_is_itself() -> None:
    images, labels = toy_eyes(60, seed=0)
    nearest = replace(BASELINES["knn"], settings={"neighbours": 1})
    features = describe(nearest, images, None)
    predicted = build(nearest, "knn", 0).fit(features, labels).predict(features)
    np.testing.assert_allclose(predicted, labels, atol=1e-12)


def test_adaptive_linear_regression_recovers_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    features, turn = rng.normal(size=(400, 5)), rng.normal(size=(5, 2))
    targets = features @ turn + [0.3, -0.1]
    model = AdaptiveLinearRegression(support=40, ridge=1e-9).fit(features[:300], targets[:300])
    np.testing.assert_allclose(model.predict(features[300:]), targets[300:], atol=1e-4)


def test_adaptive_linear_regression_keeps_to_similar_images() -> None:
    """Far away the map is another one; a global linear regression would mix the two."""
    rng = np.random.default_rng(1)
    near, far = rng.normal(size=(100, 3)), rng.normal(size=(100, 3)) + 50
    features, targets = np.concatenate([near, far]), np.concatenate([near[:, :2], -far[:, :2]])
    model = AdaptiveLinearRegression(support=20, ridge=1e-6).fit(features, targets)
    asked = rng.normal(size=(20, 3)) * 0.5
    np.testing.assert_allclose(model.predict(asked), asked[:, :2], atol=0.02)


def test_a_strong_ridge_is_the_mean_of_the_neighbours() -> None:
    features, targets = np.arange(8.0)[:, None], np.arange(16.0).reshape(8, 2)
    model = AdaptiveLinearRegression(support=8, ridge=1e9).fit(features, targets)
    np.testing.assert_allclose(model.predict(np.array([[1.2]])), targets.mean(axis=0)[None], rtol=1e-6)
    with pytest.raises(ValueError, match="ridge 0"):
        AdaptiveLinearRegression(4, 0)


@pytest.mark.parametrize("name", BASELINES)
def test_each_learns_gaze_from_renders_and_gives_the_same_twice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(BASELINES[name], images=250)
    if name == "forest":
        small = replace(small, settings={**small.settings, "trees": 20})
    monkeypatch.setattr(baselines, "BASELINES", {name: small})
    training, test = toy_store(tmp_path / "training", 300, 0), toy_store(tmp_path / "test", 60, 1)
    predicted = fit_and_predict(name, training, test, seed=0)
    truth = test.pitch_yaw()
    constant = angular_error_deg(np.repeat(training.pitch_yaw().mean(axis=0, keepdims=True), 60, axis=0), truth).mean()
    assert predicted.dtype == np.float32 and predicted.shape == (60, 2)
    assert angular_error_deg(predicted, truth).mean() < 0.4 * constant
    np.testing.assert_array_equal(predicted, fit_and_predict(name, training, test, seed=0))
    assert not np.array_equal(predicted, fit_and_predict(name, training, test, seed=1)), "seeds draw the images"


def test_head_pose_helps_where_both_sides_know_it_and_is_left_out_elsewhere(tmp_path: Path) -> None:
    training, test = headed(tmp_path / "training", 300, 0), headed(tmp_path / "test", 60, 1)
    bare = toy_store(tmp_path / "bare", 60, 2)
    assert head_pose(bare) is None
    np.testing.assert_array_equal(head_pose(test), test.pitch_yaw())
    error = angular_error_deg(fit_and_predict("knn", training, test, seed=0), test.pitch_yaw()).mean()
    assert error < 2, "the images show nothing, so the head pose must have told"
    assert fit_and_predict("knn", training, bare, seed=0).shape == (60, 2)


def test_brightness_and_contrast_do_not_change_the_features() -> None:
    images, _ = toy_eyes(3, seed=0)
    darker = (images.astype(np.float32) * 0.5 + 20).round().astype(np.uint8)
    for name in ("knn", "svr"):
        one, two = (describe(BASELINES[name], part, None) for part in (images, darker))
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-3)
        assert (one * two).sum(axis=1).min() > 0.99


def test_gradient_histograms_tell_directions_apart() -> None:
    stripes = np.tile(np.array([0, 0, 0, 0, 255, 255, 255, 255], np.uint8), 8)[None, None, None]  # edges stand upright
    upright = np.broadcast_to(stripes, (1, 1, 48, 64))
    lying = np.ascontiguousarray(np.broadcast_to(stripes[:, :, :, :48].transpose(0, 1, 3, 2), (1, 1, 48, 64)))
    for images, direction in ((upright, 0), (lying, 4)):  # 0: across; 4.5: down, shared between 4 and 5
        features = describe(BASELINES["svr"], images, None).reshape(-1, baselines.DIRECTIONS)
        assert features.shape == (1476 // 9, 9) and (features.argmax(axis=1) == direction).all()


def test_settings_are_compared_on_images_that_are_held_back(tmp_path: Path) -> None:
    store = toy_store(tmp_path / "s", 200, 0)
    candidates = {str(k): replace(BASELINES["knn"], settings={"neighbours": k}) for k in (1, 160)}
    found = validation_errors("knn", store, candidates, with_head=False)
    assert 0 < found["1"] < found["160"], (
        "the mean of all neighbours knows little; images held back are not found again"
    )


def test_an_unknown_baseline_is_named() -> None:
    with pytest.raises(ValueError, match="expected one of knn"):
        build(BASELINES["knn"], "nearest", 0)
