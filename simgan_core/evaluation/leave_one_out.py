"""The published LeNet that learnt from 42,000 *labelled real* images of the 14 other persons, on our test images.

It is what a lab that can label people gets for a person it has no label of, and so the mark for an estimator that has
seen no label of a real image at all. Its predictions for MPIIGaze's evaluation subset are public, [15, 3000, 2], with
the labels beside them; those of the test images are found by person and row. Legend: N test images; angles in radians.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simgan_core.datasets.mpiigaze import SAME_LABEL_RAD
from simgan_core.datasets.npz import read_arrays
from simgan_core.datasets.prepare import PUBLISHED
from simgan_core.datasets.store import Store
from simgan_core.evaluation.comparison import Comparison

FILE = Path("mpiigaze") / PUBLISHED
ARM = "lenet"
TITLE = "LeNet, 42,000 labelled real images of 14 other people"


def leave_one_out(data_root: Path, test: Store) -> NDArray[np.float32] | None:
    """The published predictions [N, 2] for the images of `test`; None where they cannot be matched.

    That is where the file is absent, where the images are no persons' with a row in the evaluation subset (the
    stand-in), or where the label of a single one differs from the published label of that row: then the rows mean
    something else, and predictions of other images would be compared. A broken file raises `DataError`.
    """
    path, annotations = data_root / FILE, test.annotations()
    if not path.is_file() or not {"person", "row"} <= set(annotations.columns):
        return None
    arrays = read_arrays(path, ("pitch_yaw", "predicted"), "download it again, or remove it", every=True)
    person, row = annotations["person"].to_numpy(), annotations["row"].to_numpy()
    persons, rows = arrays["pitch_yaw"].shape[:2]
    if not ((person >= 0) & (person < persons) & (row >= 0) & (row < rows)).all():
        return None
    if np.abs(arrays["pitch_yaw"][person, row] - test.pitch_yaw()).max() > SAME_LABEL_RAD:
        return None
    return np.asarray(arrays["predicted"][person, row], np.float32)


def beside(comparison: Comparison, published: NDArray[np.float32] | None) -> Comparison:
    """The comparison with the published predictions [N, 2] as one more arm, `ARM`; the same where there are none."""
    if published is None:
        return comparison
    return dataclasses.replace(comparison, predicted={**comparison.predicted, ARM: published[None]})
