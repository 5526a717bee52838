"""What the candidates of a selection are worth to a gaze CNN, on labelled images that nothing is reported of.

`simgan_core.selection` chooses without labels. Whoever has labelled images besides, a *validation part* on which no
result is tested, can see here what that choice costs: each candidate's refined images, and the raw ones, teach a gaze
CNN (section 3.1), and its error on the validation part stands beside the verdict. No verdict depends on it.

One CNN differs from another on the same images by as much as refining gains, so several are better judges: their errors
are averaged, and what they say together, by the mean of their directions, is told too.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.checkpoints import load_refiner
from simgan_core.config import GazeConfig
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import sha256
from simgan_core.evaluation.comparison import NEXT_CNN, committee
from simgan_core.evaluation.dependence import groups_of
from simgan_core.evaluation.kept import cached
from simgan_core.evaluation.statistics import NOT_NEGATIVE, Estimate, two_level_bootstrap
from simgan_core.gaze import angular_error_deg
from simgan_core.gaze_estimator import predict, train_gaze_cnn
from simgan_core.precision import resolve_device
from simgan_core.provenance import PACKAGE, code_fingerprint
from simgan_core.refine import refine_images
from simgan_core.workers import side_by_side

CODE = ("gaze_estimator.py", "refine.py")
"""Modules that decide predictions, with all that they import: an edit makes kept ones out of date."""


@dataclass(frozen=True)
class Validation:
    """Labelled images: `synthetic` are those that are refined, `images` the validation part; `cnns` judge each."""

    synthetic: Store
    images: Store
    gaze: GazeConfig
    cnns: int = 1

    def check(self) -> None:
        """Raise `ValueError` unless both are labelled and of one size."""
        for name, store in (("synthetic", self.synthetic), ("validation", self.images)):
            if not store.has_labels:
                raise ValueError(
                    f"the {name} images ({store.path}) have no pitch and yaw; expected them for --validation: in a "
                    "store, or in the folder's labels.csv (file, pitch, yaw in radians). Or leave --validation out."
                )
        sizes = [(*store.size, store.channels) for store in (self.synthetic, self.images)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"validation images {sizes[1]} found ({self.images.path}); expected {sizes[0]}, (height, width, "
                "channels) of the synthetic ones. Prepare them alike."
            )


@dataclass(frozen=True)
class Errors:
    """Mean angular error on the validation part, of gaze CNNs without and with augmentation; over images, degrees.

    The committees' are those of all CNNs together; None where there is one.
    """

    plain: Estimate
    augmented: Estimate
    committee: Estimate | None = None
    augmented_committee: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {name: estimate.to_dict() for name, estimate in vars(self).items() if estimate is not None}


@dataclass(frozen=True)
class _Task:
    weights: Path | None  # None: raw renders
    folder: Path  # of what raw renders teach; the others' is kept beside their weights
    synthetic: Path
    images: Path
    gaze: GazeConfig
    seed: int
    augment: bool
    cnns: int


def validate(
    validation: Validation,
    weights: Sequence[Path | None],
    folder: Path,
    seed: int,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> list[Errors]:
    """Errors of gaze CNNs that learn from the images of each of these refiners, raw ones for None, in their order.

    Predictions are kept in `folder` (raw) or beside the weights, and made again when what decides them changed.
    """
    tasks = [
        _Task(
            file, folder, validation.synthetic.path, validation.images.path, validation.gaze, seed, augment,
            validation.cnns,
        )
        for file in weights
        for augment in (False, True)
    ]  # fmt: skip
    found = side_by_side(_answers, tasks, title="validate", workers=workers, progress=progress)
    pairs = zip(found[::2], found[1::2], strict=True)
    return [_errors(plain, augmented, validation.images) for plain, augmented in pairs]


def _errors(plain: NDArray[np.float32], augmented: NDArray[np.float32], images: Store) -> Errors:
    """Errors of answers [cnns, N, 2] without and with augmentation."""
    truth, groups = images.pitch_yaw(), groups_of(images)

    def mean(answers: NDArray[np.float32]) -> Estimate:
        errors = np.stack([angular_error_deg(one, truth) for one in answers])
        return two_level_bootstrap(errors.mean(axis=0)[None], groups=groups, bounds=NOT_NEGATIVE)

    if len(plain) == 1:
        return Errors(mean(plain), mean(augmented))
    together = (mean(committee(answers)[None]) for answers in (plain, augmented))
    return Errors(mean(plain), mean(augmented), *together)


def _kept(weights: Path | None, folder: Path, augment: bool, cnn: int) -> Path:
    file = folder / "raw" if weights is None else weights.with_suffix("")
    which = ("-augmented" if augment else "") + (f"-cnn{cnn}" if cnn else "")
    return file.with_name(f"{file.name}-validation{which}.npz")


def _answers(task: _Task) -> NDArray[np.float32]:
    """What each CNN of a candidate says, [cnns, N, 2]; its images are refined once, and not at all if all is kept."""
    synthetic, images = Store.open(task.synthetic), Store.open(task.images)
    weights = None if task.weights is None else sha256(task.weights)
    code = [code_fingerprint(PACKAGE / name) for name in CODE]

    @functools.cache
    def renders() -> NDArray[np.uint8]:
        if task.weights is None:
            return synthetic.images()
        return refine_images(load_refiner(task.weights).to(resolve_device("auto")), synthetic.images())

    def learn_and_predict(seed: int) -> NDArray[np.float32]:
        labels = synthetic.pitch_yaw()
        model = train_gaze_cnn(renders(), labels, task.gaze, seed=seed, augment=task.augment, progress=False)
        return predict(model, images)

    answers = []
    for cnn in range(task.cnns):
        seed = task.seed + NEXT_CNN * cnn
        parts = [
            code, weights, synthetic.checksum, images.checksum, dataclasses.asdict(task.gaze), seed, task.augment,
        ]  # fmt: skip
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        place = _kept(task.weights, task.folder, task.augment, cnn)
        answers.append(cached(place, key, functools.partial(learn_and_predict, seed)))
    return np.stack(answers)
