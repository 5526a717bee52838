"""A camera model that turns renders into the *stand-in target domain* of the embedded data.

The paper's real domain is MPIIGaze (section 3.1): laptop webcams, cropped and warped to one size. Where no real data
are at hand, the project renders other procedural people and passes them through this camera, so that the synthetic
and the target domain differ in a way a refiner can learn: light fall-off, defocus and motion blur, the sensor's own
lower resolution, shot and read noise, tone curve, JPEG. It is a stand-in and is never called real: nothing that holds
between these two domains proves anything about photographs.

Shape legend: B images, C channels (1 or 3), H rows, W columns. Lengths in pixels of the frame that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simgan_core.simulators.counter_random import normals, uniforms

Range = tuple[float, float]
_KERNEL = 9  # pixels; wide enough for the strongest blur of the default ranges
_SETTINGS = 16  # columns of random numbers that set an image's camera
_STREAM_SETTINGS, _STREAM_NOISE = 0x5E7717, 0x40153
_JPEG_BLOCK = 8


@dataclass(frozen=True)
class CameraModel:
    """Ranges of the camera, one uniform draw per image unless a comment says otherwise.

    Calling it is a pure function of (images, seed, indices): image i gets the same camera and the same noise whatever
    the batch. Callers equalise afterwards, as MPIIGaze does. The defaults are those of a poor webcam, on purpose: with
    a good one, an estimator that is trained on raw renders loses nothing on the target, and there is nothing to refine.
    """

    exposure_stops: Range = (-0.7, 0.7)
    gradient: Range = (0.05, 0.8)  # relative change of light from one border to the other, in a random direction
    vignette: Range = (0.0, 0.4)  # loss of light at the corners
    defocus_px: Range = (0.5, 1.3)  # standard deviation of the blur
    motion_px: Range = (0.0, 2.2)  # length of the movement, in a random direction
    resolution: Range = (0.45, 0.9)  # sensor pixels per pixel of the frame
    full_well_log10: Range = (2.5, 3.9)  # electrons at white: fewer mean more shot noise
    read_noise: Range = (0.001, 0.005)  # standard deviation, white = 1, linear light
    gamma: Range = (0.8, 1.25)  # of the tone curve, on top of sRGB's
    jpeg_quality: Range = (55.0, 95.0)
    jpeg_probability: float = 0.8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and not (len(value) == 2 and value[0] <= value[1]):
                raise ValueError(f"CameraModel.{field.name}: {value} found; (low, high) with low <= high expected")
        if not 0.0 < self.resolution[0] <= self.resolution[1] <= 1.0:
            raise ValueError(f"CameraModel.resolution: {self.resolution} found; values in (0, 1] expected")
        if not 1.0 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100.0:
            raise ValueError(f"CameraModel.jpeg_quality: {self.jpeg_quality} found; values in [1, 100] expected")
        if not 0.0 <= self.jpeg_probability <= 1.0:
            raise ValueError(f"CameraModel.jpeg_probability: {self.jpeg_probability} found; 0 to 1 expected")

    def __call__(self, images: Tensor, seed: int, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Tensor:
        """Photograph renders: float [B, C, H, W] sRGB-coded in [0, 1] -> the same shape, range and device.

        `indices` [B] are the images' numbers in the stream `seed`. Raises ValueError if shapes do not agree.
        """
        index = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices, dtype=np.int64)
        if images.ndim != 4 or images.shape[1] not in (1, 3) or len(index) != len(images):
            raise ValueError(
                f"images of shape {tuple(images.shape)} with {len(index)} indices found; float [B, 1 or 3, H, W] in "
                "[0, 1] and one index per image expected"
            )
        draw = uniforms(seed ^ _STREAM_SETTINGS, index, _SETTINGS)
        noise = normals(uniforms(seed ^ _STREAM_NOISE, index, math.prod(images.shape[1:])))
        light = _to_linear(images.float()) * self._illumination(draw, images)
        light = _blur(light, self._kernels(draw).to(images))
        result = torch.empty_like(light)
        for steps in _groups(self._resolutions(draw, images.shape[-1])):
            width, rows = steps
            result[rows] = self._expose(light[rows], width, draw[rows], noise[rows])
        return result

    def _pick(self, limits: Range, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(limits[0] + (limits[1] - limits[0]) * uniform)

    def _illumination(self, draw: NDArray[np.float64], images: Tensor) -> Tensor:
        """Exposure, gradient and vignette as a factor [B, 1, H, W]."""
        height, width = images.shape[-2:]
        y = torch.linspace(-1.0, 1.0, height, device=images.device)[:, None]
        x = torch.linspace(-1.0, 1.0, width, device=images.device)[None, :]
        angle = 2.0 * np.pi * draw[:, 0]
        slope = self._pick(self.gradient, draw[:, 1])
        columns = (slope * np.cos(angle), slope * np.sin(angle), self._pick(self.vignette, draw[:, 2]))
        across, down, corner = (_column(c, images) for c in columns)
        gain = _column(2.0 ** self._pick(self.exposure_stops, draw[:, 3]), images)
        fall_off = 1.0 - 0.5 * corner * (x**2 + y**2)
        return gain * (1.0 + 0.5 * (across * x + down * y)) * fall_off

    def _kernels(self, draw: NDArray[np.float64]) -> Tensor:
        """Point spread [B, k, k]: a Gaussian swept along a line."""
        sigma = self._pick(self.defocus_px, draw[:, 4])
        length, angle = self._pick(self.motion_px, draw[:, 5]), np.pi * draw[:, 6]
        steps = np.linspace(-0.5, 0.5, 5)
        axis = np.arange(_KERNEL) - _KERNEL // 2
        centre_x = length[:, None] * np.cos(angle)[:, None] * steps
        centre_y = length[:, None] * np.sin(angle)[:, None] * steps
        spread = 2.0 * sigma[:, None, None] ** 2
        along_x = np.exp(-((axis - centre_x[..., None]) ** 2) / spread)
        along_y = np.exp(-((axis - centre_y[..., None]) ** 2) / spread)
        kernel = np.einsum("bsy,bsx->byx", along_y, along_x)
        return torch.from_numpy(kernel / kernel.sum(axis=(1, 2), keepdims=True))

    def _resolutions(self, draw: NDArray[np.float64], width: int) -> NDArray[np.int64]:
        """Width of each image on the sensor, pixels."""
        return np.maximum(np.round(self._pick(self.resolution, draw[:, 7]) * width), 2).astype(np.int64)

    def _expose(self, light: Tensor, width: int, draw: NDArray[np.float64], noise: NDArray[np.float64]) -> Tensor:
        """Sensor, tone curve, 8 bits and JPEG at `width` pixels, then back to the frame's size."""
        size = light.shape[-2:]
        height = max(round(size[0] * width / size[1]), 2)
        small = F.interpolate(light, (height, width), mode="bilinear", antialias=True, align_corners=False)
        electrons = _column(10.0 ** self._pick(self.full_well_log10, draw[:, 8]), light)
        read = _column(self._pick(self.read_noise, draw[:, 9]), light)
        grain = torch.from_numpy(noise[:, : small[0].numel()]).to(small).reshape(small.shape)
        small = small + grain * (small.clamp_min(0.0) / electrons + read**2).sqrt()
        coded = _to_srgb(small.clamp(0.0, 1.0)) ** _column(self._pick(self.gamma, draw[:, 10]), light)
        pixels = (coded * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        quality = np.round(self._pick(self.jpeg_quality, draw[:, 11])).astype(int)
        for i in np.flatnonzero(draw[:, 12] < self.jpeg_probability):
            corner = (draw[i, 13:15] * _JPEG_BLOCK).astype(int)
            pixels[i] = _jpeg(pixels[i], int(quality[i]), (int(corner[0]), int(corner[1])))
        stored = torch.from_numpy(pixels).to(light) / 255.0
        return F.interpolate(stored, size, mode="bicubic", align_corners=False).clamp(0.0, 1.0)


def _column(values: NDArray[np.float64], like: Tensor) -> Tensor:
    """One number per image as [B, 1, 1, 1], of the images' kind."""
    return torch.from_numpy(values).to(like.device, torch.float32).view(-1, 1, 1, 1)


def _groups(widths: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Images that share a sensor width: (width, their rows)."""
    return [(int(width), np.flatnonzero(widths == width)) for width in np.unique(widths)]


def _blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image [B, C, H, W] with its own kernel [B, k, k]; borders are reflected."""
    count, channels = images.shape[:2]
    border = min(_KERNEL // 2, images.shape[-2] - 1, images.shape[-1] - 1)
    cut = _KERNEL // 2 - border
    kernels = kernels[:, cut : _KERNEL - cut, cut : _KERNEL - cut]
    kernels = kernels / kernels.sum(dim=(1, 2), keepdim=True)
    padded = F.pad(images, (border,) * 4, mode="reflect").flatten(0, 1)[None]
    weight = kernels.repeat_interleave(channels, dim=0)[:, None].to(images.dtype)
    return F.conv2d(padded, weight, groups=count * channels).view_as(images)


def _to_linear(coded: Tensor) -> Tensor:
    """sRGB code values in [0, 1] to linear light (IEC 61966-2-1)."""
    coded = coded.clamp(0.0, 1.0)
    return torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: Tensor) -> Tensor:
    """Linear light in [0, 1] to sRGB code values."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def _jpeg(image: NDArray[np.uint8], quality: int, corner: tuple[int, int]) -> NDArray[np.uint8]:
    """Code and decode [C, H, W]; `corner` (rows, columns) says where the crop lies relative to the coder's blocks."""
    rows, columns = corner
    planes = np.pad(image, ((0, 0), (rows, 0), (columns, 0)), mode="edge").transpose(1, 2, 0)
    done, code = cv2.imencode(".jpg", planes[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:  # cannot happen for a uint8 image with pixels
        raise RuntimeError(f"OpenCV could not code an image of shape {planes.shape} as JPEG; reinstall OpenCV")
    flag = cv2.IMREAD_GRAYSCALE if image.shape[0] == 1 else cv2.IMREAD_COLOR
    decoded = np.asarray(cv2.imdecode(code, flag), dtype=np.uint8).reshape(planes.shape)[..., ::-1]
    return np.ascontiguousarray(decoded[rows:, columns:].transpose(2, 0, 1))
