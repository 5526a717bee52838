"""Tiny stores of eyes for the tests of the method: a dark disc on bright skin; 'real' ones are noisy and darker."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simgan_core.datasets.store import Store, StoreWriter

SIZE = (35, 55)


def toy_eyes(count: int, seed: int, *, real: bool = False, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, C, 35, 55] and labels float32 [N, 2]: the disc moves with pitch (up) and yaw (left)."""
    rng = np.random.default_rng(seed)
    labels = rng.uniform(-0.3, 0.3, (count, 2)).astype(np.float32)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    across = (27 - 30 * labels[:, 1])[:, None, None]
    down = (17 - 30 * labels[:, 0])[:, None, None]
    eye = np.where((rows - down) ** 2 + (columns - across) ** 2 < 36, 60.0, 190.0)
    if real:
        eye = 0.8 * eye - 10 + rng.normal(0, 15, eye.shape)
    images = np.repeat(eye.clip(0, 255).astype(np.uint8)[:, None], channels, axis=1)
    return images, labels


def toy_store(path: Path, count: int, seed: int, *, real: bool = False, channels: int = 1) -> Store:
    """A store of them; the real one has no labels, as in the method."""
    images, labels = toy_eyes(count, seed, real=real, channels=channels)
    with StoreWriter(path, size=SIZE, channels=channels, provenance={"toy": seed}) as writer:
        writer.append(images, {} if real else {"pitch": labels[:, 0], "yaw": labels[:, 1]})
    return Store.open(path)
