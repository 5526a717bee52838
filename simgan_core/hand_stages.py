"""The long stages of 08_hand_pose, resumable: stores, refiners of all seeds (for 04 too), refined hands, hourglasses.

As in `stages`, each leaves a fingerprint of what decides its result; a rerun with the same one goes on or returns.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simgan_core.checkpoints import REFINER
from simgan_core.config_hand import HandConfig, hand_profile, to_dict
from simgan_core.datasets.prepare_hands import NAMES, RECORDED, PreparedHands, prepare_hands
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import sha256
from simgan_core.evaluation.hand_comparison import (
    BOUND,
    HAND_ARMS,
    HandComparison,
    HandData,
    compare_hand_arms,
    rows_of_views,
)
from simgan_core.hand_models import load_hand_refiner
from simgan_core.hand_training import train_hand_refiner
from simgan_core.locks import alone
from simgan_core.precision import resolve_device
from simgan_core.provenance import PACKAGE, code_fingerprint, read_json, write_json
from simgan_core.refine import refine_images, refine_store
from simgan_core.run_folder import RunFolder
from simgan_core.stages import MADE_WITH, _begin, whole
from simgan_core.training_log import EQUALS_INPUT, read_metrics
from simgan_core.workers import side_by_side

KINDS = ("local", "global")
GREY_LEVELS = 127.5
"""Levels of 255 in one unit of images from -1 to 1."""


@dataclass(frozen=True)
class HandRun:
    """The hand part of a run: its folder, settings and stores."""

    path: Path
    config: HandConfig
    seeds: tuple[int, ...]
    stores: PreparedHands

    @property
    def target_name(self) -> str:
        """What figures call the target domain."""
        return "stand-in target" if self.stores.is_standin else "real"

    def refiner(self, kind: str, seed: int) -> Path:
        """Folder of one training."""
        return self.path / f"{kind}-seed-{seed}"

    def refined(self, seed: int) -> Path:
        """Store of the synthetic hands after the local refiner of `seed`."""
        return self.refiner("local", seed) / "refined"


def open_hands(run: RunFolder) -> HandRun:
    """The run's hands; their stores are made where they are missing or out of date."""
    config, path = hand_profile(run.config.profile), run.path / "hands"
    with alone(path / ".stores.lock"):
        stores = prepare_hands(run.data, config, run.data_root, path / "stores")
    return HandRun(path, config, run.ablation_seeds, stores)


def store_rows(hands: HandRun) -> pd.DataFrame:
    """One row per store: how many images, their size, whether joints are known."""
    paths = {name: getattr(hands.stores, name) for name in (*NAMES, RECORDED)}
    stores = {name: Store.open(path) for name, path in paths.items() if path is not None}
    rows = [(name, len(s), f"{s.size[0]} × {s.size[1]}", "uvd" in s.columns) for name, s in stores.items()]
    table = pd.DataFrame(rows, columns=["store", "images", "height × width", "joints"])
    table["joints"] = table["joints"].map({True: "yes", False: "no"})
    return table


@dataclass(frozen=True)
class _Training:
    """One refiner to train; what a worker process gets."""

    hands: HandRun
    kind: str
    seed: int


def train_hand_refiners(hands: HandRun, *, workers: int | None = None, progress: bool = True) -> None:
    """Train the refiners of all seeds with the local and the global D, side by side; refine with the local ones."""
    tasks = [_Training(hands, kind, seed) for kind in KINDS for seed in hands.seeds]
    side_by_side(_train, tasks, title="hand refiners", workers=workers, progress=progress)


def _train(task: _Training) -> None:
    """Train and refine; a notebook that runs beside and wants the same training waits for it."""
    with alone(task.hands.refiner(task.kind, task.seed).with_suffix(".lock")):
        _train_alone(task)


def _train_alone(task: _Training) -> None:
    hands, config = task.hands, to_dict(task.hands.config)
    synthetic, target = Store.open(hands.stores.synthetic), Store.open(hands.stores.target)
    folder = hands.refiner(task.kind, task.seed)
    settings = {name: config[name] for name in ("wide", "discriminator_width", "method")}
    made_with: dict[str, Any] = {
        "code": code_fingerprint(PACKAGE / "hand_training.py"),
        "settings": settings,
        "kind": task.kind,
        "stores": [synthetic.checksum, target.checksum],
    }
    _begin(folder, made_with)
    train_hand_refiner(
        synthetic, target, folder, hands.config, seed=task.seed, kind=task.kind, resume=True, progress=False
    )
    if task.kind == "local":
        _refine(synthetic, folder / REFINER, hands.refined(task.seed))


def _refine(synthetic: Store, weights: Path, out: Path) -> None:
    code = code_fingerprint(PACKAGE / "refine.py")
    made_with = {"code": code, "weights": sha256(weights), "synthetic": synthetic.checksum}
    stamp = out.with_name(f"{out.name}-{MADE_WITH}")
    if stamp.is_file() and read_json(stamp) == made_with and whole(out) is not None:
        return
    shutil.rmtree(out, ignore_errors=True)
    refine_store(load_hand_refiner(weights), synthetic, out, batch=64, progress=False)
    write_json(stamp, made_with)


def compare_hands(hands: HandRun, *, workers: int | None = None, progress: bool = True) -> HandComparison:
    """Table 4 and its bound: every arm and seed, tested on the held-back frontal images of the target."""
    refined = {seed: hands.refined(seed) for seed in hands.seeds}
    stores = hands.stores
    data = HandData(stores.synthetic, stores.target_labels, stores.test, refined, stores.recorded)
    return compare_hand_arms(
        data,
        hands.config.estimator,
        hands.path / "estimators",
        seeds=hands.seeds,
        arms=HAND_ARMS if stores.recorded is None else (*HAND_ARMS, BOUND),
        workers=workers,
        progress=progress,
    )


def refiner_activity(hands: HandRun) -> pd.DataFrame:
    """What every refiner does at the end of its training: a row per kind of D and seed, means of the last ten lines.

    A refiner that changes less than `training_log.EQUALS_INPUT` hands on its input, and its arms of table 4 learn from
    all but raw renders.
    """
    rows = []
    for kind in KINDS:
        for seed in hands.seeds:
            lines = [line for line in read_metrics(hands.refiner(kind, seed)) if line["phase"] == "adversarial"][-10:]
            change, real, fresh = (
                float(np.mean([line.get(name, np.nan) for line in lines]))
                for name in ("refined_minus_input", "accuracy_real", "accuracy_fresh")
            )
            rows.append((kind, seed, GREY_LEVELS * change, real, fresh, change < EQUALS_INPUT))
    names = ["D", "seed", "change (levels of 255)", "D right on target", "D right on refined", "equals input"]
    return pd.DataFrame(rows, columns=names)


def frontal(store: Path, count: int) -> NDArray[np.uint8]:
    """The first `count` frontal images of a store, uint8 [count, 1, H, W]."""
    opened = Store.open(store)
    rows = rows_of_views(opened, 1) if "view" in opened.columns else np.arange(len(opened))
    return opened.images(rows[:count])


def refined_images(hands: HandRun, kind: str, images: NDArray[np.uint8], seeds: Sequence[int]) -> NDArray[np.uint8]:
    """`images` after the refiners of `kind`, uint8 [S, N, 1, H, W]."""
    device = resolve_device("auto")
    return np.stack(
        [refine_images(load_hand_refiner(hands.refiner(kind, s)).to(device), images, batch=64) for s in seeds]
    )


def labels_of(store: Path, count: int) -> dict[str, NDArray[np.float64]]:
    """Joints `xyz` [count, 14, 3] in mm and crop `cube` [count, 4] of the first images of a store."""
    frame = Store.open(store).annotations(["xyz", "cube"]).head(count)
    xyz, cube = (np.stack(frame[name].tolist()).astype(np.float64) for name in ("xyz", "cube"))
    return {"xyz": xyz.reshape(len(xyz), -1, 3), "cube": cube}
