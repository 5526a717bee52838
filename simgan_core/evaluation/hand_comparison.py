"""The hand comparison (section 3.2, table 4): one hourglass per kind of training data, all tested on the same images.

Distances are in pixels of the paper's 224 x 224 crop, whatever the size of the profile's images: a profile of 56 pixels
counts each of its pixels as four. 'Within 5 px' is the percentage of joints, over all joints and test images, whose
estimate lies within that distance. Shapes: S seeds, N images, J joints; joints are (u, v).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simgan_core.config_hand import PAPER_SIDE, HourglassConfig
from simgan_core.datasets.store import Store
from simgan_core.evaluation.dependence import groups_of
from simgan_core.evaluation.hand import pck_area, pck_curve
from simgan_core.evaluation.kept import cached
from simgan_core.evaluation.statistics import (
    NOT_NEGATIVE,
    Estimate,
    paired_difference,
    percentage,
    two_level_bootstrap,
)
from simgan_core.hand_estimator import predict_joints, train_hourglass
from simgan_core.provenance import PACKAGE, code_fingerprint
from simgan_core.workers import side_by_side

Floats = NDArray[np.float32]
ESTIMATOR = PACKAGE / "hand_estimator.py"
WITHIN_PX = 5.0
"""The paper's distance (table 4), in pixels of its 224 x 224 crop."""
AREA_UP_TO_PX = 20.0


@dataclass(frozen=True)
class HandArm:
    """One kind of training data: where its images come from, how many views, and what tables call it."""

    name: str
    title: str
    source: Literal["synthetic", "refined", "target", "recorded"]
    views: int = 1


HAND_ARMS: tuple[HandArm, ...] = (
    HandArm("raw", "Synthetic", "synthetic"),
    HandArm("refined", "Refined synthetic", "refined"),
    HandArm("real", "Target with labels ('real' in the paper)", "target"),
    HandArm("raw_3views", "Synthetic, 3 views", "synthetic", views=3),
    HandArm("refined_3views", "Refined synthetic, 3 views", "refined", views=3),
)
BOUND = HandArm("recorded", "Synthetic, recorded by the target's camera", "recorded")
"""Not in the paper: about what a perfect refiner of pixels would reach. Only a modelled target can be rendered so."""
HAND_TITLES: Mapping[str, str] = {arm.name: arm.title for arm in (*HAND_ARMS, BOUND)}


@dataclass(frozen=True)
class HandData:
    """Labelled stores: renders, the target's training images (for 'real'), the test; per seed the refined renders.

    `recorded` are the renders as the target's camera sees them, for the arm `BOUND`.
    """

    synthetic: Path
    target: Path
    test: Path
    refined: Mapping[int, Path]
    recorded: Path | None = None


@dataclass(frozen=True)
class HandComparison:
    """Estimates of every arm: `predicted[arm]` float32 [S, N, J, 2], pixels of images of `side`; truth [N, J, 2]."""

    truth: Floats
    predicted: Mapping[str, Floats]
    seeds: tuple[int, ...]
    side: int
    groups: NDArray[Any] | None = None

    def errors_px(self, arm: str) -> Floats:
        """Distances in pixels of the 224 x 224 crop, [S, N, J]."""
        distance = np.linalg.norm(self.predicted[arm] - self.truth, axis=-1)
        return np.asarray(distance * (PAPER_SIDE / self.side), dtype=np.float32)

    def percent_within(self, arm: str, distance_px: float = WITHIN_PX) -> Floats:
        """Percentage of each image's joints within the distance, [S, N]."""
        return np.asarray(100.0 * (self.errors_px(arm) <= distance_px).mean(axis=-1), dtype=np.float32)

    def within(self, arm: str, distance_px: float = WITHIN_PX) -> Estimate:
        """Percentage of joints within the distance, with its 95 % interval over seeds and images."""
        return percentage(self.percent_within(arm, distance_px), groups=self.groups)

    def mean_error_px(self, arm: str) -> Estimate:
        """Mean distance, with its 95 % interval over seeds and images."""
        return two_level_bootstrap(self.errors_px(arm).mean(axis=-1), groups=self.groups, bounds=NOT_NEGATIVE)

    def gain_points(self, arm: str, baseline: str, distance_px: float = WITHIN_PX) -> Estimate:
        """Percentage points of joints within the distance that `arm` gains; seeds and images are paired."""
        ours, theirs = (self.percent_within(name, distance_px) for name in (arm, baseline))
        return paired_difference(ours, theirs, groups=self.groups)

    def curve(self, arm: str, distances_px: Sequence[float]) -> NDArray[np.floating[Any]]:
        """Percentage of joints within each distance, seeds pooled."""
        return pck_curve(self.errors_px(arm), distances_px)

    def area_percent(self, arm: str) -> float:
        """Area under that curve up to 20 px, in percent."""
        return pck_area(self.errors_px(arm), AREA_UP_TO_PX)

    def per_joint(self, arm: str, distance_px: float = WITHIN_PX) -> NDArray[np.floating[Any]]:
        """Percentage within the distance of every joint, [J], seeds pooled."""
        return np.asarray(100.0 * (self.errors_px(arm) <= distance_px).mean(axis=(0, 1)))


Task = tuple[HandArm, int, Path, Path, HourglassConfig, Path]


def compare_hand_arms(
    data: HandData,
    config: HourglassConfig,
    out: Path,
    *,
    seeds: Sequence[int],
    arms: Sequence[HandArm] = HAND_ARMS,
    workers: int | None = None,
    progress: bool = True,
) -> HandComparison:
    """Train and test every arm with every seed, reading what an earlier call with equal code and settings left.

    Every arm makes the same number of updates of the same network; only its images differ.

    Raises:
        FileNotFoundError: if a store that an arm needs is missing.

    """
    out.mkdir(parents=True, exist_ok=True)
    tasks: list[Task] = [
        (arm, seed, training_store(arm, seed, data), data.test, config, out) for arm in arms for seed in seeds
    ]
    found = side_by_side(_predict_arm, tasks, title="hourglasses", workers=workers, progress=progress)
    predicted = {arm.name: np.stack(found[i * len(seeds) : (i + 1) * len(seeds)]) for i, arm in enumerate(arms)}
    test = Store.open(data.test)
    return HandComparison(joints_uv(test), predicted, tuple(seeds), test.size[0], groups_of(test))


def training_store(arm: HandArm, seed: int, data: HandData) -> Path:
    """The store that an arm trains on; only the arm on the target opens labelled images of the target."""
    if arm.source == "refined":
        if seed not in data.refined:
            raise FileNotFoundError(
                f"no refined hands for seed {seed}; found seeds {sorted(data.refined)}. Train the refiner with it."
            )
        return data.refined[seed]
    if arm.source == "recorded":
        if data.recorded is None:
            raise FileNotFoundError(
                f"arm {arm.name!r} needs renders as the target's camera records them; none were named. Leave it out."
            )
        return data.recorded
    return data.target if arm.source == "target" else data.synthetic


def joints_uv(store: Store) -> Floats:
    """Joints (u, v) of a store of hands in pixels of its images, float32 [N, J, 2]."""
    flat = np.stack(store.annotations(["uvd"])["uvd"].tolist()).astype(np.float32)
    return flat.reshape(len(flat), -1, 3)[..., :2].copy()


def rows_of_views(store: Store, views: int) -> NDArray[np.int64]:
    """Rows whose view is one of the first `views`."""
    return np.flatnonzero(store.annotations(["view"])["view"].to_numpy() < views)


def _predict_arm(task: Task) -> Floats:
    arm, seed, training_path, test_path, config, out = task
    training, test = Store.open(training_path), Store.open(test_path)
    code = code_fingerprint(ESTIMATOR)  # an edited estimator must not be credited with the old one's estimates
    parts = [code, arm.views, seed, dataclasses.asdict(config), training.checksum, test.checksum]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    path = out / f"{arm.name}-seed{seed}.npz"

    def estimates() -> Floats:
        rows = rows_of_views(training, arm.views)
        model = train_hourglass(training.images(rows), joints_uv(training)[rows], config, seed=seed, progress=False)
        return predict_joints(model, test.images())

    return cached(path, key, estimates)
