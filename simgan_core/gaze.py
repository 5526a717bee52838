"""Gaze geometry in MPIIGaze's camera frame (section 3.2, Appearance-based gaze estimation).

Camera axes: x to the right of the image, y down, z away from the camera. Pitch p and yaw y in radians; unit gaze
vector g = (-cos p sin y, -sin p, -cos p cos y): looking into the camera is (0, 0, -1), looking down has negative pitch,
positive yaw moves the iris towards image-left. Functions take torch tensors or numpy arrays and return the same kind.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.images import tensor_of

Array = TypeVar("Array", Tensor, NDArray[Any])


def _tensor(array: Tensor | NDArray[Any], last: int) -> Tensor:
    tensor = array if isinstance(array, Tensor) else tensor_of(array)
    if tensor.ndim < 1 or tensor.shape[-1] != last:
        names = "(pitch, yaw)" if last == 2 else "(x, y, z)"
        raise ValueError(f"shape {tuple(tensor.shape)} found; [..., {last}] expected, the last axis being {names}")
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def _like(result: Tensor, array: Array) -> Array:
    return result if isinstance(array, Tensor) else result.numpy()


def gaze_vector(pitch_yaw: Array) -> Array:
    """[..., 2] pitch, yaw (rad) -> [..., 3] unit gaze vector."""
    angles = _tensor(pitch_yaw, 2)
    pitch, yaw = angles[..., 0], angles[..., 1]
    vector = torch.stack((-pitch.cos() * yaw.sin(), -pitch.sin(), -pitch.cos() * yaw.cos()), dim=-1)
    return _like(vector, pitch_yaw)


def pitch_yaw(vector: Array) -> Array:
    """[..., 3] gaze vector of any length -> [..., 2] pitch in [-pi/2, pi/2] and yaw in (-pi, pi], radians."""
    x, y, z = _tensor(vector, 3).unbind(dim=-1)
    angles = torch.stack((torch.atan2(-y, torch.hypot(x, z)), torch.atan2(-x, -z)), dim=-1)
    return _like(angles, vector)


def angular_error_deg(a_pitch_yaw: Array, b_pitch_yaw: Array) -> Array:
    """Angle between two gaze directions, [..., 2] and [..., 2] (rad) -> [...] degrees; NaN where an input is NaN.

    2 atan2(|a - b|, |a + b|) in double precision: exact for small angles, where the arc cosine loses half its digits.
    """
    a = gaze_vector(_tensor(a_pitch_yaw, 2).to(torch.float64))
    b = gaze_vector(_tensor(b_pitch_yaw, 2).to(torch.float64))
    angle = 2.0 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))
    return _like(torch.rad2deg(angle), a_pitch_yaw)


def mirror_images(images: Array) -> Array:
    """Images with columns on the last axis, mirrored left to right: a right eye becomes a left one."""
    if isinstance(images, Tensor):
        return images.flip(-1)
    return np.ascontiguousarray(images[..., ::-1])


def mirror_pitch_yaw(pitch_yaw: Array) -> Array:
    """[..., 2] gaze of the mirrored image: same pitch, yaw negated."""
    angles = _tensor(pitch_yaw, 2)
    return _like(torch.stack((angles[..., 0], -angles[..., 1]), dim=-1), pitch_yaw)
