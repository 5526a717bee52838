"""Gaze geometry: conventions, inverses, mirrored eyes, small angles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_core.gaze import angular_error_deg, gaze_vector, mirror_images, mirror_pitch_yaw, pitch_yaw

angle = st.floats(-1.4, 1.4)


def test_conventions_of_mpiigaze() -> None:
    ahead, down, image_left = gaze_vector(torch.tensor([[0.0, 0.0], [-0.3, 0.0], [0.0, 0.3]]))
    assert torch.allclose(ahead, torch.tensor([0.0, 0.0, -1.0]))
    assert down[1] > 0, "y points down: negative pitch looks down"
    assert image_left[0] < 0, "positive yaw looks to image-left"


@settings(max_examples=100, deadline=None)
@given(angle, angle, st.floats(0.1, 50))
def test_angles_to_vector_and_back(pitch: float, yaw: float, length: float) -> None:
    angles = np.array([pitch, yaw])
    vector = gaze_vector(angles)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert pitch_yaw(length * vector) == pytest.approx(angles, abs=1e-9)


def test_error_in_degrees() -> None:
    a = np.array([[0.0, 0.0], [0.1, 0.2], [0.0, 0.0]], np.float32)
    b = np.array([[0.0, math.radians(7)], [0.1, 0.2], [math.radians(90), 0.0]], np.float32)
    assert angular_error_deg(a, b) == pytest.approx([7, 0, 90], abs=1e-5)
    tiny = angular_error_deg(np.zeros(2), np.array([0.0, 1e-9]))
    assert tiny == pytest.approx(math.degrees(1e-9), rel=1e-6), "an arc cosine would give 0"


def test_mirror_flips_columns_and_negates_yaw_and_is_its_own_inverse() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4)
    assert mirror_images(images)[0, 0, 0].tolist() == [3, 2, 1, 0]
    assert np.array_equal(mirror_images(mirror_images(images)), images)
    assert torch.equal(mirror_images(torch.from_numpy(images)), torch.from_numpy(mirror_images(images)))
    angles = torch.tensor([[0.1, 0.2]])
    assert torch.equal(mirror_pitch_yaw(angles), torch.tensor([[0.1, -0.2]]))
    mirrored = gaze_vector(mirror_pitch_yaw(angles)) * torch.tensor([-1.0, 1.0, 1.0])
    assert torch.allclose(mirrored, gaze_vector(angles))


def test_torch_and_numpy_agree_and_keep_their_kind() -> None:
    angles = np.random.default_rng(0).uniform(-1, 1, (5, 2))
    assert isinstance(gaze_vector(angles), np.ndarray)
    assert np.allclose(gaze_vector(torch.from_numpy(angles)).numpy(), gaze_vector(angles))


def test_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"\(5, 3\) found; \[..., 2\] expected"):
        gaze_vector(np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"\[..., 3\] expected"):
        pitch_yaw(np.zeros((5, 2)))
