"""A discriminator trained from scratch to tell images from real ones: what a new critic sees, not the one R has beaten.

Half of the images of each kind train it, with a small fixed budget and its own seed; the other half tests it. Its AUC
is the probability that it takes a random image for less real than a random real one: 0.5 means that it cannot tell.

Legend: N M images of the two kinds, B batch, C H W image, h w patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from simgan_core.allocator import keep_freed_memory
from simgan_core.evaluation.statistics import CONFIDENCE, Estimate
from simgan_core.images import to_float
from simgan_core.models import REAL, REFINED, LocalDiscriminator, to_channels_last
from simgan_core.precision import autocast

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

STEPS = 200
BATCH = 32  # of each kind
LEARNING_RATE = 1e-3
DRAWS = 1000


@dataclass(frozen=True)
class FreshDiscriminator:
    """Result on the held-back halves: `auc` with its 95 % interval over images; scores, higher = less real."""

    auc: Estimate
    scores_images: Floats  # [N/2]
    scores_real: Floats  # [M/2]


def fresh_discriminator(images: UInt8, real: UInt8, seed: int = 0, steps: int | None = None) -> FreshDiscriminator:
    """Train on half of `images` and `real`, uint8 [N, C, H, W] and [M, C, H, W], and test on the rest."""
    if images.shape[1:] != real.shape[1:] or min(len(images), len(real)) < 8:
        raise ValueError(
            f"images {images.shape} and real {real.shape} found; equal C, H, W and at least 8 of each expected"
        )
    rng = np.random.default_rng(seed)
    keep_freed_memory()
    halves = [_halves(part, rng) for part in (images, real)]
    network = _train(halves[0][0], halves[1][0], rng, seed, STEPS if steps is None else steps)
    scores = [_scores(network, held_back) for _, held_back in halves]
    return FreshDiscriminator(area_under_curve(scores[0], scores[1], seed=seed), scores[0], scores[1])


def _halves(images: UInt8, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
    order = rng.permutation(len(images))
    return images[np.sort(order[: len(order) // 2])], images[np.sort(order[len(order) // 2 :])]


def _train(images: UInt8, real: UInt8, rng: np.random.Generator, seed: int, steps: int) -> LocalDiscriminator:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = to_channels_last(LocalDiscriminator(images.shape[1]))
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    labels = torch.tensor([REFINED] * BATCH + [REAL] * BATCH)
    for _ in range(steps):
        batch = np.concatenate([part[rng.integers(len(part), size=BATCH)] for part in (images, real)])
        with autocast(torch.device("cpu")):  # in training alone: the scores are always fp32
            logits = network(to_float(torch.from_numpy(batch))).float()
        loss = F.cross_entropy(logits, labels[:, None, None].expand(-1, *logits.shape[-2:]))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return network.eval()


@torch.no_grad()
def _scores(network: LocalDiscriminator, images: UInt8, batch: int = 256) -> NDArray[np.float32]:
    """Mean log-odds of 'not real' over an image's patches."""
    found = []
    for start in range(0, len(images), batch):
        logits = network(to_float(torch.from_numpy(images[start : start + batch])))
        found.append((logits[:, REFINED] - logits[:, REAL]).mean(dim=(1, 2)).numpy())
    return np.concatenate(found)


def area_under_curve(higher: Floats, lower: Floats, seed: int = 0) -> Estimate:
    """P(a > b) + P(a = b) / 2 for a from `higher` [N], b from `lower` [M], with a 95 % bootstrap interval over both."""
    wins = (np.sign(np.subtract.outer(higher, lower)) + 1) / 2
    n, m = wins.shape
    rng = np.random.default_rng(seed)
    drawn_rows = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    drawn_columns = rng.multinomial(m, np.full(m, 1 / m), size=DRAWS)
    drawn = np.einsum("kn,kn->k", drawn_rows, drawn_columns @ wins.T) / (n * m)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(wins.mean()), float(low), float(high), seeds=1, n=min(n, m))
