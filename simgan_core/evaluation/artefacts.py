"""Artefacts: patches of refined images that look like no patch of the target (section 2.2 shows them, we count them).

The measure was fixed before any run. Patches of 7 x 7 pixels, every 4 pixels, lose their mean grey level and get the
Mahalanobis distance to the patches of one half of the target images. A patch is an artefact where that distance exceeds
the 99th percentile of the patches of the other half: of the target's own patches one in a hundred is called so.
Checkerboards, ghosts of strong contrast and noise that no camera makes raise the share; patches smoother than the
target's lower it, as a lack of detail is no artefact.

*Anywhere* or *by place*: that measure knows patches from all places alike, so that lashes and glints set its limit and
a faint streak on a cheek passes. `fit_patches(by_place=True)` compares each patch with those of the target at the same
place: streaks, frames and dark corners count then, and so does all that is framed, lit or blurred otherwise. It was
added after results of the first one had been seen, is reported beside it, and judges no claim.

Legend: N images, C H W image, P patches per image, D = values per patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simgan_core.images import tensor_of

Images = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

SIDE, STRIDE = 7, 4  # pixels
PERCENTILE = 99.0
PLACES_SHRUNK = 1.0  # by place, the covariance of all places counts as much as this many images for each value
NOISE_FLOOR = 1.0  # variance in squared grey levels added to every direction: rounding to 8 bits is no structure


@dataclass(frozen=True)
class PatchModel:
    """Mean [D], whitening matrix [D, D] and the largest usual squared distance [] of the target's patches.

    By place, each of them has a leading axis [P].
    """

    mean: Tensor
    whitening: Tensor
    limit: Tensor

    def distances(self, images: Images) -> Tensor:
        """Squared Mahalanobis distances of the patches, [N, P]."""
        centred = _patches(images) - self.mean
        if self.whitening.ndim == 2:
            return (centred @ self.whitening).square().sum(-1)
        return torch.einsum("npd,pde->npe", centred, self.whitening).square().sum(-1)

    def artefact_percent(self, images: Images, batch: int = 512) -> Floats:
        """Percentage of each image's patches that look like none of the target's, [N]."""
        parts = [
            (self.distances(images[start : start + batch]) > self.limit).float().mean(dim=1)
            for start in range(0, len(images), batch)
        ]
        return np.asarray(100.0 * torch.cat(parts).numpy(), dtype=np.float64)

    def artefact_map(self, images: Images) -> Floats:
        """How often each pixel is part of an artefact, percent of the images, [H, W]; where no patch lies, 0."""
        size = (images.shape[-2], images.shape[-1])
        found = (self.distances(images) > self.limit).double()[:, None]
        covered = found.expand(-1, SIDE * SIDE, -1)
        counts = F.fold(covered, size, kernel_size=SIDE, stride=STRIDE)[:, 0]
        return np.asarray(100.0 * (counts > 0).double().mean(dim=0).numpy())


def fit_patches(target: Images, *, by_place: bool = False, seed: int = 0, limit: int = 4000) -> PatchModel:
    """Learn what patches of the target [N, C, H, W] look like: half of the images for the distance, half for its limit.

    `by_place`: for each place of the image on its own; some hundred images are needed.

    Raises:
        ValueError: fewer than 8 images, or smaller than a patch.

    """
    if len(target) < 8 or min(target.shape[-2:]) < SIDE:
        raise ValueError(f"target images {target.shape} found; at least 8 of {SIDE} x {SIDE} pixels or more expected")
    order = np.random.default_rng(seed).permutation(len(target))[:limit]
    one, other = (np.ascontiguousarray(target[np.sort(part)]) for part in np.array_split(order, 2))
    patches = _patches(one)
    mean = patches.mean(dim=0) if by_place else patches.flatten(0, 1).mean(dim=0)
    values, vectors = torch.linalg.eigh(_covariance(patches, by_place))
    model = PatchModel(mean, vectors / values.sqrt().unsqueeze(-2), limit=torch.zeros(()))
    usual = model.distances(other).numpy()
    largest = np.percentile(usual, PERCENTILE, axis=0) if by_place else np.percentile(usual, PERCENTILE)
    return PatchModel(mean, model.whitening, limit=torch.from_numpy(np.asarray(largest)))


def _covariance(patches: Tensor, by_place: bool) -> Tensor:
    """Covariance [D, D] of patches [N, P, D] about their mean, or of each place [P, D, D] about its own."""
    count, size = len(patches), patches.shape[2]
    floor = NOISE_FLOOR * torch.eye(size, dtype=patches.dtype)
    if not by_place:
        return torch.cov(patches.flatten(0, 1).T) + floor
    centred = patches - patches.mean(dim=0)
    found = torch.einsum("npd,npe->pde", centred, centred) / max(1, count - 1)
    shrunk = PLACES_SHRUNK * size / (count + PLACES_SHRUNK * size)
    return torch.lerp(found, found.mean(dim=0), shrunk) + floor


def _patches(images: Images) -> Tensor:
    """Patches without their mean, [N, P, D], double precision."""
    pixels = tensor_of(images).to(torch.float64)
    patches = F.unfold(pixels, kernel_size=SIDE, stride=STRIDE).transpose(1, 2)
    return patches - patches.mean(dim=-1, keepdim=True)
