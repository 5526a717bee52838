"""Matching renders to the unlabelled real images without learning: what one would try before a refiner.

Not in the paper. Each image takes grey levels or low frequencies of one real image that a seed draws for it; no label
is read. Shapes: N images, C H W; uint8 in and out.

    histogram  grey levels follow the reference's distribution (Gonzalez and Woods, 'histogram specification')
    fourier    low-frequency amplitudes are the reference's, phases stay (Yang and Soatto 2020, FDA)
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Match = Literal["histogram", "fourier"]

FDA_BETA = 0.09
"""Half width of the exchanged window as a share of the shorter side: the largest of FDA's three, here 3 frequencies."""
_CHUNK = 2048


def matched(images: UInt8, real: UInt8, how: Match, *, seed: int) -> UInt8:
    """`images` [N, C, H, W] after matching each to one of `real` [M, C, H, W], drawn with replacement.

    Raises:
        ValueError: no real images, or images of another shape.

    """
    if len(real) == 0 or real.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"real images of shape {real.shape} found for images of shape {images.shape}; at least one, of the same "
            "channels and size, expected; prepare both with the same data.size"
        )
    drawn = np.random.default_rng(seed).integers(len(real), size=len(images))
    match = match_histograms if how == "histogram" else match_amplitudes
    out = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK):
        rows = slice(start, start + _CHUNK)
        out[rows] = match(images[rows], real[drawn[rows]])
    return out


def match_histograms(images: UInt8, references: UInt8) -> UInt8:
    """Each channel's grey levels mapped such that their distribution becomes that of the reference's channel.

    Both [N, C, H, W]. The map is monotonic: level x goes to the reference's quantile at the middle of x's share. With
    whole levels the match is exact only where every level of the image fits into one of the reference's.
    """
    _check_pair(images, references)
    flat = images.reshape(-1, images.shape[-2] * images.shape[-1])
    ordered = np.sort(references.reshape(flat.shape), axis=1)
    out = np.empty_like(flat)
    for row, (image, reference) in enumerate(zip(flat, ordered, strict=True)):
        counts = np.bincount(image, minlength=256)
        middle = np.cumsum(counts) - (counts + 1) // 2  # rank of the level's middle pixel
        out[row] = reference[middle.clip(0, image.size - 1)][image]
    return out.reshape(images.shape)


def match_amplitudes(images: UInt8, references: UInt8, beta: float = FDA_BETA) -> UInt8:
    """The images with the references' low-frequency Fourier amplitudes and their own phases; both [N, C, H, W].

    Frequencies up to floor(beta * shorter side) cycles per image along either axis are exchanged, the mean among them;
    beta = 0 exchanges nothing, which FDA's own code does not allow for (there the mean is always exchanged).
    """
    _check_pair(images, references)
    if not 0 <= beta <= 0.5:
        raise ValueError(f"beta is {beta}; expected a share from 0 (nothing is exchanged) to 0.5 (everything)")
    height, width = images.shape[-2:]
    reach = int(beta * min(height, width))
    if reach == 0:
        return images.copy()
    spectrum: NDArray[Any] = np.fft.fft2(images.astype(np.float32))
    other = np.abs(np.fft.fft2(references.astype(np.float32)))
    rows, columns = (np.abs(np.fft.fftfreq(side)) * side < reach + 0.5 for side in (height, width))
    low = rows[:, None] & columns[None, :]
    amplitude = np.where(low, other, np.abs(spectrum))
    out = np.fft.ifft2(amplitude * np.exp(1j * np.angle(spectrum))).real
    return np.asarray(out.round().clip(0, 255), dtype=np.uint8)


def _check_pair(images: UInt8, references: UInt8) -> None:
    if images.shape != references.shape or images.ndim != 4:
        raise ValueError(
            f"images {images.shape} and references {references.shape} found; [N, C, H, W] twice, the same, expected"
        )
