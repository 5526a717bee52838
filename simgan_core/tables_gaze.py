"""Tables of 07_gaze_evaluation beside the paper's own: amount of data (table 2), methods (table 3), realism."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simgan_core.evaluation.baselines import BASELINES
from simgan_core.evaluation.comparison import TITLES, Comparison
from simgan_core.evaluation.leave_one_out import ARM, TITLE
from simgan_core.evaluation.published import NOTE, TABLE_2, TABLE_3
from simgan_core.evaluation.realism_comparison import MEASURES, RealismComparison
from simgan_core.evaluation.statistics import Estimate

RIVALS = (
    "raw_augmented", "histogram", "fourier", "refined_augmented",
    "raw_committee", "raw_augmented_committee", "refined_committee", "refined_augmented_committee",
)  # fmt: skip
"""Arms beyond the paper: what one would try first, and several CNNs that answer together."""
COMMITTEES = (
    ("refined_committee", "raw_committee"),
    ("refined_augmented_committee", "raw_augmented_committee"),
    ("refined_augmented_committee", ARM),
    ("raw_augmented_committee", ARM),
)
"""Pairs of arms; the second may be the published LeNet."""
REDUCED = "ours, reduced budget"
OTHER_TRAINING = "ours, on renders (the paper's learnt from real images)"
SAME_IMAGES = "published, same test images"


def of_shared_seeds(comparison: Comparison) -> Comparison:
    """The arms of table 2 over the seeds that all of them have: the number of images must not be one of seeds too."""
    arms = [published.ours for published in TABLE_2]
    return comparison.of_first_seeds(arms, min(comparison.seeds_of(arm) for arm in arms))


def amount(comparison: Comparison) -> pd.DataFrame:
    """Table 2: share of images within 7 degrees by kind and amount of training images, ours beside the published.

    Over the seeds that all four arms have.
    """
    comparison, rows = of_shared_seeds(comparison), []
    for published in TABLE_2:
        within = comparison.within_7_deg(published.ours)
        ours = (within.value, within.low, within.high, within.seeds, within.n)
        rows.append((published.ours, TITLES[published.ours], *ours, published.value))
    names = ["arm", "title", "within 7° (%)", "low", "high", "seeds", "images", NOTE]
    return pd.DataFrame(rows, columns=names)


def by_eye(comparison: Comparison, half: NDArray[np.integer[Any]]) -> pd.DataFrame:
    """Yaw bias of every arm on left (`half` 0) and right eyes (1), [N], and its error without each eye's mean error.

    The last column reads the labels and is no result: it says how much of the error is one offset per eye. In
    normalised images gaze is the eye's rotation in the head plus the head's; a person who turns the head while looking
    at the screen shifts all labels of one eye, to opposite sides in the two (right eyes are mirrored), and one small
    picture of an eye hardly shows the head.
    """
    biases, centred = {}, {}
    for arm, predicted in comparison.predicted.items():
        error, offset = predicted - comparison.truth, np.zeros_like(predicted)
        means = [error[:, half == eye].mean(axis=1, keepdims=True) for eye in (0, 1)]
        for eye, mean in enumerate(means):
            offset[:, half == eye] = mean
        biases[arm] = [float(np.degrees(mean[..., 1].mean())) for mean in means]
        centred[arm] = predicted - offset
    without = dataclasses.replace(comparison, predicted=centred)
    rows = [
        (arm, *biases[arm], float(comparison.errors_deg(arm).mean()), float(without.errors_deg(arm).mean()))
        for arm in biases
    ]
    names = ["arm", "yaw bias, left eyes (°)", "yaw bias, right eyes (°)", "mean error (°)"]
    return pd.DataFrame(rows, columns=[*names, "without these offsets (°)"])


def methods(
    comparison: Comparison, reduced: Mapping[str, Estimate], others: Mapping[str, Estimate] | None = None
) -> pd.DataFrame:
    """Table 3: mean error by method; first ours, then the published rows, marked as such in the last column.

    `reduced` holds what was trained with the ablations' smaller budget; such rows compare with one another alone.
    `others` holds published estimators that were tested on the very same images.
    """
    paper = ["constant", *BASELINES, "raw", "refined"]
    rows = []
    for arm in [*paper, *RIVALS, "oracle"]:
        if arm in comparison.predicted:
            error = comparison.mean_error_deg(arm)
            source = "ours, as the paper" if arm in paper[1:] else "ours, beyond the paper"
            source = OTHER_TRAINING if arm in BASELINES and arm != "knn" else source
            rows.append((TITLES[arm], error.value, error.low, error.high, error.seeds, error.n, source))
    for source, found in ((SAME_IMAGES, others or {}), (REDUCED, reduced)):
        for method, error in found.items():
            rows.append((method, error.value, error.low, error.high, error.seeds, error.n, source))
    published = [(f"{row.method}, {row.trained_on}", row.value, None, None, None, None, NOTE) for row in TABLE_3]
    names = ["method", "mean error (°)", "low", "high", "seeds", "images", "source"]
    table = pd.DataFrame([*rows, *published], columns=names)
    return table.astype({"seeds": "Int64", "images": "Int64", "low": float, "high": float})


def committees(comparison: Comparison, published: NDArray[np.float32] | None = None) -> pd.DataFrame:
    """What refining lowers where all CNNs answer together, and committees beside published predictions [N, 2].

    There is one of each, so that intervals are over images. Empty where an arm has one CNN.
    """
    titles, rows = dict(TITLES), []
    if published is not None:
        comparison = dataclasses.replace(comparison, predicted={**comparison.predicted, ARM: published[None]})
        titles[ARM] = TITLE
    for arm, baseline in COMMITTEES:
        if {arm, baseline} <= set(comparison.predicted):
            errors = [comparison.mean_error_deg(name).value for name in (arm, baseline)]
            lower = comparison.reduction_percent(arm, baseline)
            rows.append(
                (titles[arm], titles[baseline], *errors, lower.value, lower.low, lower.high, lower.seeds, lower.n)
            )
    names = ["committee", "beside", "mean error (°)", "of the other (°)", "reduction (%)", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=[*names, "images"])


def realism(found: RealismComparison) -> pd.DataFrame:
    """Each measure for raw and for refined renders, mean over seeds and hull of the seeds' intervals."""
    rows = []
    for measure, title in MEASURES.items():
        for kind in ("raw", "refined"):
            one = found.estimate(kind, measure)
            rows.append((title, kind, one.value, one.low, one.high, one.seeds, one.n))
    return pd.DataFrame(rows, columns=["measure", "images", "value", "low", "high", "seeds", "n"])
