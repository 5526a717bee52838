"""Predictions that a run keeps: an arm is trained once and read afterwards, by whatever process wants it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgan_core.locks import alone

Floats = NDArray[np.float32]


def cached(path: Path, key: str, compute: Callable[[], Floats]) -> Floats:
    """What `path` holds under `key`, computed first if it does not; of two processes one computes, the other waits."""
    with alone(path.with_suffix(".lock")):
        if path.exists():
            with np.load(path) as saved:
                if str(saved["key"]) == key:
                    return np.asarray(saved["predicted"], dtype=np.float32)
        predicted = compute()
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, predicted=predicted, key=np.array(key))
        os.replace(partial, path)
        return predicted
