"""Local against global adversarial loss at depth edges (section 3.2, the paper's figure of depth images).

The paper shows a picture: with a global loss the edges of the hand carry artefacts that real depth has not. The
measure, fixed before any run: around the silhouette of each image (a band of two pixels of a 56-pixel crop to either
side) the strength of the local change is taken, |4 x - left - right - up - down| / 4 in levels of 255. The *edge
distance* is the Wasserstein-1 distance, in levels, between the distribution of that strength in refined images and in
images of the target domain. 0 means that edges are as sharp, as jagged and as torn as the target's; no label is used.
`simgan_core.hand_edges` applies it to a run.

Shapes: N images, H W crop, K bins. Images are uint8 [N, 1, H, W]; 0 is background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simgan_core.evaluation.statistics import NOT_NEGATIVE, Estimate, two_level_bootstrap

Images = NDArray[np.uint8]
Counts = NDArray[np.float64]
HAND_ABOVE = 24
"""Levels above this belong to the hand: a refined background may be a little above 0."""
BAND_OF_56 = 2
BINS = 64
WIDTH = 256 / BINS


def edge_band(images: Images) -> NDArray[np.bool_]:
    """Pixels near the silhouette, bool [N, H, W]."""
    hand = torch.from_numpy((images > HAND_ABOVE).astype(np.float32))
    reach = max(1, round(BAND_OF_56 * images.shape[-1] / 56))
    return np.asarray(((_grown(hand, reach) > 0) & (_grown(1 - hand, reach) > 0))[:, 0].numpy())


def _grown(mask: Tensor, reach: int) -> Tensor:
    return F.max_pool2d(mask, kernel_size=2 * reach + 1, stride=1, padding=reach)


def change_strength(images: Images) -> NDArray[np.float32]:
    """|4 x - left - right - up - down| / 4 in levels, float32 [N, H, W]; the border is repeated."""
    padded = F.pad(torch.from_numpy(images.astype(np.float32)), (1, 1, 1, 1), mode="replicate")
    middle = padded[..., 1:-1, 1:-1]
    around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return np.asarray(((4 * middle - around).abs() / 4)[:, 0].numpy())


def edge_counts(images: Images) -> Counts:
    """Histogram of the strength in each image's band, counts [N, K]; the last bin takes what lies above."""
    band, strength = edge_band(images), change_strength(images)
    place = np.minimum((strength / WIDTH).astype(np.int64), BINS - 1)
    counts = np.zeros((len(images), BINS))
    image, row, column = np.nonzero(band)
    np.add.at(counts, (image, place[image, row, column]), 1.0)
    return counts


def edge_distance(counts: Counts, target: Counts) -> float:
    """Wasserstein-1 distance in levels of the pooled histograms [..., K].

    Images without any silhouette count as images without any change, which is as far from edges as images can be.
    """
    ours, theirs = (_cumulative(c.reshape(-1, BINS).sum(axis=0)) for c in (counts, target))
    return float(WIDTH * np.abs(ours - theirs).sum())


def _cumulative(counts: Counts) -> Counts:
    total = counts.sum()
    return np.cumsum(counts) / total if total else np.ones(BINS)


def edge_estimate(counts: Counts, target: Counts, draws: int = 500, groups: NDArray[Any] | None = None) -> Estimate:
    """Edge distance of refined images, counts [S, N, K], with its 95 % interval over seeds and images (or groups)."""
    return two_level_bootstrap(counts, lambda c: edge_distance(c, target), draws, groups=groups, bounds=NOT_NEGATIVE)


def edge_advantage(
    local: Counts, whole: Counts, target: Counts, draws: int = 500, groups: NDArray[Any] | None = None
) -> Estimate:
    """Edge distance with the global loss minus that with the local one; above 0 local is nearer to the target.

    Counts [S, N, K] of the same synthetic images with the same seeds; seeds and images stay paired.
    """

    def difference(pair: Any) -> float:
        return edge_distance(pair[..., 1, :], target) - edge_distance(pair[..., 0, :], target)

    return two_level_bootstrap(np.stack([local, whole], axis=2), statistic=difference, draws=draws, groups=groups)
