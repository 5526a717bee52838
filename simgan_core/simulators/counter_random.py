"""Counter-based random numbers: row i of a stream depends on (seed, i) alone, never on the batch that asks for it.

Legend: B indices, C columns (one per quantity that is drawn for an image).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014): a bijection of 64-bit words that scatters its input."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seed: int, indices: Sequence[int] | NDArray[np.int64], columns: int) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), shape [B, C]: entry (b, c) is a function of seed, indices[b] and c only."""
    index = np.asarray(indices, dtype=np.int64)
    if index.ndim != 1 or (index.size and index.min() < 0):
        raise ValueError(f"indices of shape {index.shape} found; expected a flat list of image numbers >= 0")
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        key = _mix(np.full(1, seed % 2**64, dtype=np.uint64) + _GOLDEN)
        row = _mix(key + (index.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        column = (np.arange(columns, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
        word = _mix(row[:, None] + column[None, :])
    return ((word >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normals(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard normal numbers from uniform ones, by the inverse distribution function."""
    return np.asarray(ndtri(uniform), dtype=np.float64)
