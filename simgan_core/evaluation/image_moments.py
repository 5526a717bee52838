"""What the fits of light and of camera share: renders in batches, and moments of statistics of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.ranges import EyeParameters
from simgan_core.simulators.simulate import RENDER_BATCH

Floats = NDArray[np.float64]


def moments(statistics: Floats) -> Floats:
    """Means and standard deviations [2K] over the images of statistics [N, K]."""
    return np.concatenate([statistics.mean(axis=0), statistics.std(axis=0)])


@torch.no_grad()
def render_all(
    simulator: EyeSimulator, indices: range, change: Callable[[EyeParameters], EyeParameters] | None = None
) -> Tensor:
    """Renders [D, C, H, W] in [0, 1] of the images `indices` of stream 0, no camera before them, on the CPU.

    `change`, if given, alters what was drawn before it is rendered.
    """
    parts = []
    for start in range(0, len(indices), RENDER_BATCH):
        drawn = simulator.sample(0, indices[start : start + RENDER_BATCH])
        parts.append(simulator.render(drawn if change is None else change(drawn)).image.cpu())
    return torch.cat(parts)
