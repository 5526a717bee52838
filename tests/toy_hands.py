"""Tiny depth "hands" for the tests of the method: discs of different depth at the joints; targets are ragged."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simgan_core.datasets.store import Store, StoreWriter

CUBE = (320.0, 240.0, 750.0, 300.0)


def toy_hands(
    count: int, seed: int, *, side: int = 56, joints: int = 14, target: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 1, side, side] and joints float32 [N, J, 2] in pixels: joint j is a disc of its own level."""
    rng = np.random.default_rng(seed)
    uv = rng.uniform(0.15 * side, 0.85 * side, (count, joints, 2))
    v, u = np.mgrid[:side, :side] + 0.5
    images = np.zeros((count, side, side))
    for j in range(joints):
        reach = (u - uv[:, j, 0, None, None]) ** 2 + (v - uv[:, j, 1, None, None]) ** 2
        images = np.where(reach < (0.06 * side) ** 2, 60 + 180 * j / joints, images)
    if target:
        noisy = np.round((images + rng.normal(0, 6, images.shape)) / 8) * 8
        images = np.where((images > 0) & (rng.uniform(size=images.shape) > 0.08), noisy.clip(1, 255), 0)
    return images.astype(np.uint8)[:, None], uv.astype(np.float32)


def toy_hand_store(path: Path, poses: int, seed: int, *, views: int = 3, side: int = 56, target: bool = False) -> Store:
    """A store of them in the columns of rendered hands, `views` images a pose."""
    images, uv = toy_hands(poses * views, seed, side=side, target=target)
    uvd = np.concatenate([uv, np.full((*uv.shape[:2], 1), 750.0)], axis=-1).reshape(len(uv), -1).astype(np.float32)
    labels = {
        "uvd": uvd, "frame_uvd": uvd, "xyz": uvd, "cube": np.tile(np.float32(CUBE), (len(uv), 1)),
        "view": np.arange(len(uv)) % views, "pose": np.arange(len(uv)) // views,
    }  # fmt: skip
    with StoreWriter(path, size=(side, side), provenance={"toy": seed}) as writer:
        writer.append(images, labels)
    return Store.open(path)
