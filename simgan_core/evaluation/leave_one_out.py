"""The published LeNet that learnt from 42,000 *labelled real* images of the 14 other persons, on our test images.

It is what a lab that can label people gets for a person it has no label of, and so the mark for an estimator that has
seen no label of a real image at all. Its predictions for MPIIGaze's evaluation subset are public, [15, 3000, 2], with
the labels beside them; those of the test images are found by person and row. Legend: N test images; angles in radians.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simgan_core.datasets.npz import read_arrays
from simgan_core.datasets.store import Store
from simgan_core.evaluation.comparison import Comparison
from simgan_core.gaze import angular_error_deg

Floats = NDArray[np.floating[Any]]

FILE = Path("mpiigaze") / "published_lenet_leave_one_out.npz"
TITLE = "LeNet, 42,000 labelled real images of 14 other people"
HALVES = ("left eyes", "right eyes")
SAME_LABEL_RAD = 1e-3


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


def errors_deg(predicted: Floats, truth: Floats) -> Floats:
    """Angular errors [1, N] in degrees, as one seed's."""
    return np.asarray(angular_error_deg(np.ascontiguousarray(predicted), np.ascontiguousarray(truth)))[None]


def by_eye(comparison: Comparison, half: NDArray[np.integer[Any]], others: NDArray[np.float32] | None) -> pd.DataFrame:
    """Yaw bias of every arm on left and on right eyes, and its error without the mean error of each eye.

    The last column reads the labels and is no result: it says how much of the error is one offset per eye. In
    normalised images gaze is the eye's rotation in the head plus the head's; a person who turns the head while looking
    at the screen shifts all labels of one eye, to opposite sides in the two (right eyes are mirrored), and one small
    picture of an eye hardly shows the head.

    Args:
        comparison: the arms, [seeds, N, 2] each.
        half: 0 for left and 1 for right eyes, [N].
        others: predictions [N, 2] of the published LeNet, if there are any.

    """
    arms = dict(comparison.predicted) | ({} if others is None else {"lenet": others[None]})
    rows = []
    for arm, predicted in arms.items():
        offsets, biases = np.zeros_like(predicted), []
        for eye in (0, 1):
            mean = (predicted - comparison.truth)[:, half == eye].mean(axis=1, keepdims=True)
            offsets[:, half == eye] = mean
            biases.append(float(np.degrees(mean[..., 1].mean())))
        truth = np.broadcast_to(comparison.truth, predicted.shape)
        whole, without = (float(_mean_error(p, truth)) for p in (predicted, predicted - offsets))
        rows.append((arm, *biases, whole, without))
    names = ["arm", *(f"yaw bias, {eye} (°)" for eye in HALVES), "mean error (°)", "without these offsets (°)"]
    return pd.DataFrame(rows, columns=names)


def _mean_error(predicted: Floats, truth: Floats) -> float:
    found = angular_error_deg(np.ascontiguousarray(predicted), np.ascontiguousarray(truth))
    return float(np.asarray(found).mean())
