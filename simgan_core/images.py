"""Images: value ranges, size, grey level and histogram equalisation (section 3.1, Datasets; MPIIGaze's normalisation).

Shapes: B images, C channels (1 grey, 3 sRGB), H rows, W columns. In the package images are float in [-1, 1]; on disk
uint8. Everything is batched torch and runs on the device of its input. Sizes are (height, width).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights that OpenCV and JPEG use
FRAME = (36, 60)  # MPIIGaze's frames, which our renders take over
ANTIALIAS_ABOVE = 1.5  # reductions stronger than this are low-passed first; 36x60 -> 35x55 stays plain bilinear


def check_images(images: Tensor, *, dtype: str = "any") -> None:
    """Raise ValueError unless images are [B, 1 or 3, H, W], TypeError unless uint8 or float where `dtype` says so."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images of shape {tuple(images.shape)} found; [B, 1 or 3, H, W] expected; "
            "add the missing axes, for one grey image: image[None, None]"
        )
    if dtype == "uint8" and images.dtype != torch.uint8:
        raise TypeError(
            f"{images.dtype} found; uint8, 0 to 255, expected; convert tensors in [-1, 1] with to_uint8, "
            "arrays in [0, 1] with (255 * images).round().astype('uint8')"
        )
    if dtype == "float" and not images.is_floating_point():
        raise TypeError(f"{images.dtype} found; float in [-1, 1] expected; convert with to_float first")


def tensor_of(array: NDArray[Any]) -> Tensor:
    """An array as a tensor that may be written to; arrays that may not (mapped files) are copied, others shared."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def to_float(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> float32 in [-1, 1]; 0 becomes -1 and 255 becomes 1. Raises TypeError for other types."""
    check_images(images, dtype="uint8")
    return images.to(torch.float32) / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Float [B, C, H, W] in [-1, 1] -> uint8, rounded; values outside are clipped. The inverse of `to_float`."""
    check_images(images, dtype="float")
    return _round_to_uint8((images.to(torch.float32) + 1.0) * 127.5)


def _round_to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The project's only resampling: bilinear, pixel centres at half integers, to `size` = (H, W); dtype is kept.

    Reductions by more than 1.5 are low-passed first (antialiasing), so that a 600x800 photograph does not alias; the
    step from MPIIGaze's 36x60 to the paper's 35x55 is plain bilinear for every source of images.
    """
    check_images(images)
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size {size} found; (height, width) of at least 1 expected")
    if tuple(images.shape[-2:]) == (height, width):
        return images
    reduction = max(images.shape[-2] / height, images.shape[-1] / width)
    values = images if images.is_floating_point() else images.to(torch.float32)
    values = F.interpolate(
        values, size=(height, width), mode="bilinear", align_corners=False, antialias=reduction > ANTIALIAS_ABOVE
    )
    return values if images.is_floating_point() else _round_to_uint8(values)


def to_grey(images: Tensor) -> Tensor:
    """[B, 3, H, W] -> luma [B, 1, H, W] of the same dtype (uint8 is rounded); grey images are returned as they are."""
    check_images(images)
    if images.shape[1] == 1:
        return images
    values = images if images.is_floating_point() else images.to(torch.float32)
    weights = torch.tensor(LUMA, dtype=values.dtype, device=values.device).view(1, 3, 1, 1)
    luma = (values * weights).sum(dim=1, keepdim=True)
    return luma if images.is_floating_point() else _round_to_uint8(luma)


def equalise(images: Tensor) -> Tensor:
    """Histogram equalisation per image, uint8 [B, C, H, W] -> uint8; grey images bit-equal to `cv2.equalizeHist`.

    As in MPIIGaze's normalisation. The grey levels are spread such that the cumulative histogram, counted above the
    darkest level, becomes linear. Colour images: the luma is equalised and its change added to each channel, so that
    chroma is kept.
    """
    check_images(images, dtype="uint8")
    if images.shape[1] == 3:
        luma = to_grey(images)
        change = equalise(luma).to(torch.int16) - luma.to(torch.int16)
        return (images.to(torch.int16) + change).clamp(0, 255).to(torch.uint8)
    count, pixels = images.shape[0], images.shape[-2] * images.shape[-1]
    level = images.reshape(count, pixels).long()
    histogram = torch.zeros(count, 256, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, level, torch.ones_like(level))
    first = (histogram > 0).to(torch.uint8).argmax(dim=1, keepdim=True)  # darkest level that occurs
    first_count = histogram.gather(1, first)
    above = (histogram.cumsum(1) - first_count).clamp(min=0).to(torch.float32)
    # The division in float32, before the product, is OpenCV's order; another order rounds some levels differently.
    scale = torch.tensor(255.0, device=images.device) / (pixels - first_count).clamp(min=1).to(torch.float32)
    table = _round_to_uint8(above * scale)
    table = torch.where(first_count == pixels, first.to(torch.uint8), table)  # an image of one level stays as it is
    return table.gather(1, level).view_as(images)
