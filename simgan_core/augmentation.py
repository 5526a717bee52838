"""Photometric and framing augmentation for the augmented arms of the gaze comparison; not part of the paper.

It is the strongest simple rival of refinement, so the comparison has arms with it. Shapes: B batch, C H W images in
[-1, 1]. Every image gets its own draw; the gaze label is not touched.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_core.config import GazeConfig

_BLUR_REACH = 3
"""Pixels that the blur kernel reaches: three standard deviations of the strongest default blur."""


def augment(images: Tensor, config: GazeConfig, generator: torch.Generator) -> Tensor:
    """Shift, blur, gain, offset, light gradient and noise, in the order in which a camera would do them."""
    images = _shift(images, config.augment_shift, generator)
    images = _blur(images, config.augment_blur, generator)
    images = _light(images, config, generator)
    if config.augment_noise:
        strength = config.augment_noise * _uniform(images, generator, 0, 1)
        images = images + strength * torch.randn(images.shape, generator=generator, device=images.device)
    return images.clamp(-1, 1)


def _uniform(images: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """One number per image, B 1 1 1."""
    drawn = torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device)
    return low + (high - low) * drawn


def _light(images: Tensor, config: GazeConfig, generator: torch.Generator) -> Tensor:
    gain = (1 + config.augment_gain) ** _uniform(images, generator, -1, 1)
    offset = config.augment_offset * _uniform(images, generator, -1, 1)
    height, width = images.shape[-2:]
    down = torch.linspace(-1, 1, height, device=images.device).view(1, 1, height, 1)
    across = torch.linspace(-1, 1, width, device=images.device).view(1, 1, 1, width)
    slope_down, slope_across = (config.augment_gradient * _uniform(images, generator, -1, 1) for _ in range(2))
    return images * gain + offset + slope_down * down + slope_across * across


def _shift(images: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Move each image by up to `largest` pixels along x and y; the border is repeated."""
    if not largest:
        return images
    height, width = images.shape[-2:]
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for axis, side in enumerate((width, height)):
        theta[:, axis, 2] = _uniform(images, generator, -largest, largest).flatten() * 2 / side
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _blur(images: Tensor, strongest: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur, its standard deviation per image between 0 and `strongest` pixels."""
    if not strongest:
        return images
    sigma = _uniform(images, generator, 0.05, max(strongest, 0.05))
    offsets = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, device=images.device)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights = weights / weights.sum(dim=-1, keepdim=True)
    for axis in (-1, -2):
        pad = (_BLUR_REACH, _BLUR_REACH, 0, 0) if axis == -1 else (0, 0, _BLUR_REACH, _BLUR_REACH)
        padded = F.pad(images, pad, mode="replicate")
        length = images.shape[axis]
        parts = [weights[..., k : k + 1] * padded.narrow(axis, k, length) for k in range(len(offsets))]
        images = torch.stack(parts).sum(dim=0)
    return images
